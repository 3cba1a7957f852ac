"""Dialogues as columns, as the rest of the package uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Dialogues:
    """Utterances as columns, one entry per row, in the order given.

    Attributes
    ----------
    dialogue_id : ndarray of shape (n,), object
        As given; the row number where the input names no dialogues.
    group : ndarray of shape (n,), int64
        Code of the dialogue; codes follow the sorted ids.
    turn : ndarray of shape (n,), int64
        Rank of the row inside its dialogue.
    turn_number : ndarray of shape (n,), float64, or None
        Turns as given, where they are whole numbers; None of times, or without turns.
    text, context : ndarray of shape (n,), object, or None
        Utterance, and prepared text before it ("" for none).
    speaker : ndarray of shape (n,), object, or None
    features : ndarray of shape (n, d), or None
        Precomputed features, instead of text.
    has_dialogues, has_turns : bool
        Whether the input named dialogues, and turns.
    """

    dialogue_id: NDArray[Any]
    group: NDArray[np.int64]
    turn: NDArray[np.int64]
    turn_number: NDArray[np.float64] | None
    text: NDArray[Any] | None
    context: NDArray[Any] | None
    speaker: NDArray[Any] | None
    features: NDArray[Any] | None
    has_dialogues: bool
    has_turns: bool

    def __len__(self) -> int:
        return len(self.group)
