"""Classes that only some speakers can have."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.speakers import ClassesBySpeaker, possible_classes
from sklearn_dialpref._dialogues.validation import Dialogues, is_missing, label_array

from .scores import plain_labels
from .targets import Targets, class_names


def all_classes(classes: Any, y_human: Any) -> Any:
    """What the labels may be, as :func:`check_targets` takes it.

    Of a multilabel problem with a dict None: its labels are the columns.
    """
    if not isinstance(classes, Mapping):
        return classes
    names = [name for speaker in classes for name in _classes_of(speaker, classes)]
    if y_human is not None:
        labels = label_array(y_human, "y_human")
        if labels.ndim == 2 and labels.shape[1] > 1:
            return None
    return np.unique(plain_labels(np.fromiter(names, dtype=object, count=len(names)), "classes"))


def _classes_of(speaker: Any, classes: Mapping[Any, Any]) -> list[Any]:
    names = classes[speaker]
    wrong = isinstance(names, str | bytes | Mapping)
    if wrong or not isinstance(names, Collection | np.ndarray):
        raise TypeError(f"classes gives the speaker {speaker!r} {names!r}: pass a list of classes")
    if is_missing([speaker])[0]:
        raise ValueError(f"classes names a missing speaker, {speaker!r}; leave it out")
    return class_names(list(names)).tolist() if len(names) else []


def classes_of_speakers(classes: Any, known: NDArray[Any]) -> ClassesBySpeaker:
    """Which of the known classes each speaker of a dict can have; empty without a dict.

    Parameters
    ----------
    classes : dict of array-like, array-like or None
    known : ndarray of shape (n_classes,)

    Returns
    -------
    dict of ndarray of bool, shape (n_classes,)
    """
    if not isinstance(classes, Mapping):
        return {}
    classes_by_speaker = {}
    for speaker in classes:
        names = _classes_of(speaker, classes)
        unknown = [name for name in names if name not in known.tolist()]
        if unknown or not names:
            given = f"{unknown}, which are not labels" if unknown else "no class"
            raise ValueError(
                f"classes gives the speaker {speaker!r} {given}; the labels are {known.tolist()}"
            )
        classes_by_speaker[speaker] = np.array([name in names for name in known.tolist()])
    return classes_by_speaker


def mask_impossible_labels(
    targets: Targets, classes: Any, dialogues: Dialogues
) -> tuple[Targets, ClassesBySpeaker]:
    """The targets without what their speakers cannot have said.

    Parameters
    ----------
    targets : Targets
    classes : dict of array-like, array-like or None
        Without a dict all stays as it is.
    dialogues : Dialogues

    Returns
    -------
    targets : Targets
        With ``possible``. The teacher's scores of impossible classes are 0, and those of the
        others add up to one again; a row without any other is NaN. Multilabel: labels that are
        impossible are NaN in labels and scores, as nothing is to be learned of them.
    classes_by_speaker : dict of ndarray of bool

    Raises
    ------
    ValueError
        If a human label is impossible.
    """
    classes_by_speaker = classes_of_speakers(classes, targets.classes)
    if not classes_by_speaker:
        return targets, classes_by_speaker
    _warn_of_other_speakers(classes_by_speaker, dialogues)
    possible = possible_classes(classes_by_speaker, dialogues, len(targets.classes))
    given = targets.human == 1 if targets.multilabel else one_hot(targets.human, possible.shape[1])
    wrong = np.argwhere(given & ~possible)
    if len(wrong):
        row, label = wrong[0]
        assert dialogues.speaker is not None
        raise ValueError(
            f"y_human gives row {row} the label {str(targets.classes[label])!r}, which its "
            f"speaker {dialogues.speaker[row]!r} cannot have by classes; correct the label, or "
            "add it there"
        )
    human, scores = targets.human, targets.scores
    if targets.multilabel:
        human = np.where(possible, human, np.float32("nan"))
        scores = None if scores is None else np.where(possible, scores, np.float32("nan"))
        return replace(targets, human=human, scores=scores), classes_by_speaker
    if scores is not None:
        scores = np.where(possible | np.isnan(scores), scores, np.float32(0))
        total = scores.sum(axis=1, keepdims=True)
        scores = np.divide(scores, total, out=np.full_like(scores, np.nan), where=total > 0)
    targets = replace(targets, scores=scores, possible=possible)
    if not (targets.has_human.any() or targets.has_score.any()):
        raise ValueError(
            "no row has a label that its speaker can have by classes: correct classes, or the "
            "labels"
        )
    return targets, classes_by_speaker


def _warn_of_other_speakers(classes_by_speaker: ClassesBySpeaker, dialogues: Dialogues) -> None:
    speakers = [] if dialogues.speaker is None else dialogues.speaker.tolist()
    if speakers and not set(speakers) & set(classes_by_speaker):
        warnings.warn(
            f"none of the speakers that classes names, {list(classes_by_speaker)[:5]}, is among "
            f"those of X, such as {speakers[0]!r}: every utterance can have every class",
            UserWarning,
            stacklevel=4,
        )


def one_hot(codes: NDArray[np.int64], n_classes: int) -> NDArray[np.bool_]:
    """Rows of the identity; of -1 none."""
    return codes[:, None] == np.arange(n_classes)
