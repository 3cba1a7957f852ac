"""Classes that only some speakers can have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .validation import Dialogues, missing_in

ClassesBySpeaker = dict[Any, NDArray[np.bool_]]


def possible_classes(
    classes_by_speaker: ClassesBySpeaker, dialogues: Dialogues, n_classes: int
) -> NDArray[np.bool_]:
    """Which classes each utterance can have; all of them for a speaker who is not named.

    Parameters
    ----------
    classes_by_speaker : dict
        As :func:`sklearn_dialpref._labels.speakers.classes_of_speakers` gives it.
    dialogues : Dialogues
    n_classes : int

    Returns
    -------
    ndarray of bool, shape (n, n_classes)
    """
    possible = np.ones((len(dialogues), n_classes), dtype=bool)
    if classes_by_speaker and dialogues.speaker is None:
        raise ValueError(
            "classes names the classes of each speaker, but X has no speakers: pass a DataFrame "
            "with a column 'speaker'"
        )
    if dialogues.speaker is not None:
        named = ~missing_in(dialogues.speaker)
        rows, speakers = np.flatnonzero(named), dialogues.speaker[named]
        for speaker, allowed in classes_by_speaker.items():
            possible[rows[speakers == speaker]] = allowed
    return possible
