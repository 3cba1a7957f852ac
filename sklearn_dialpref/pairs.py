"""Pairs of utterances of the same dialogue, as row numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

__all__ = ["dialogue_pairs"]


def dialogue_pairs(
    group: ArrayLike,
    *,
    max_partners: int = 64,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the pairs of utterances that share a dialogue.

    A dialogue of up to ``max_partners + 1`` rows gives all its pairs. A longer one gives a
    seeded sample in which every row has ``2 * (max_partners // 2)`` partners, so that time and
    memory stay linear in the number of rows.

    Parameters
    ----------
    group : array-like of shape (n_rows,)
        Integer code of each row's dialogue; rows may be interleaved.
    max_partners : int, default=64
        Partners of a row at most; at least 2.
    random_state : int, RandomState instance or None, default=None
        Seed of the sample in long dialogues.

    Returns
    -------
    i, j : ndarray of shape (n_pairs,), int64
        Row numbers; each unordered pair appears once at most.

    Examples
    --------
    >>> from sklearn_dialpref.pairs import dialogue_pairs
    >>> i, j = dialogue_pairs([0, 0, 1, 0])
    >>> sorted(zip(i.tolist(), j.tolist()))
    [(0, 1), (0, 3), (1, 3)]
    """
    if max_partners < 2:
        raise ValueError(f"max_partners must be at least 2, got {max_partners}")
    codes = np.asarray(group)
    rows = np.argsort(codes, kind="stable")
    _, start, size = np.unique(codes[rows], return_index=True, return_counts=True)
    short = size <= max_partners + 1

    position = np.arange(len(rows)) - np.repeat(start, size)
    remaining = np.where(np.repeat(short, size), np.repeat(size, size) - position, 0)
    first, second = [], []
    for offset in range(1, int(size[short].max(initial=0))):
        left = np.flatnonzero(remaining > offset)
        first.append(left)
        second.append(left + offset)

    rng = check_random_state(random_state)
    for begin, length in zip(start[~short], size[~short], strict=True):
        # distinct offsets below half a turn of the circle: no pair twice, equal partners for all
        offsets = 1 + rng.choice((length - 1) // 2, max_partners // 2, replace=False)
        around = np.arange(length)
        first.append(begin + np.tile(around, len(offsets)))
        second.append(begin + (around + offsets[:, None]).ravel() % length)

    if not first:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return rows[np.concatenate(first)], rows[np.concatenate(second)]
