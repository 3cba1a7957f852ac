"""Whether utterances are asked about without the ones before them, which are their context."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .columns import Dialogues

ALL, FIRST, CUT = "utterances", "first turn", "without the turn before"  # of data_summary_
STANDARD_ERRORS = 3.0  # by which more utterances have to be cut than in training


def turn_summary(dialogues: Dialogues) -> dict[str, int]:
    """How the turns of training are numbered; empty where they are not whole numbers.

    Returns
    -------
    dict of int
        ``FIRST``: the turn that most dialogues begin with; absent if there is no such turn.
        ``CUT``: how many utterances are not one turn after another one, nor at the beginning.
    """
    if dialogues.turn_number is None:
        return {}
    begins, n_gaps = _begins_and_gaps(dialogues)
    n_first = int((begins == begins.min()).sum())
    # numbers that go on from dialogue to dialogue tell nothing about where one begins
    if n_first < 2 or 2 * n_first <= len(begins):
        return {CUT: n_gaps}
    return {FIRST: int(begins.min()), CUT: n_gaps + len(begins) - n_first}


def warn_of_cut_context(
    dialogues: Dialogues, summary: Mapping[str, int], context_turns: int
) -> None:
    """Warn where clearly more utterances than in training miss the one before.

    Parameters
    ----------
    dialogues : Dialogues
        Utterances that are asked about.
    summary : dict of int
        ``data_summary_``; nothing is known where it lacks ``CUT``.
    context_turns : int
    """
    if dialogues.turn_number is None or CUT not in summary:
        return
    begins, n_cut = _begins_and_gaps(dialogues)
    if FIRST in summary:
        n_cut += int((begins > summary[FIRST]).sum())
    share, n = summary[CUT] / summary[ALL], len(dialogues)
    # training rows that were split off by row have gaps too, but fewer than those asked about
    if n_cut > share * n + STANDARD_ERRORS * (n * share * (1 - share)) ** 0.5:
        warnings.warn(
            f"X lacks utterances that context_turns={context_turns} would show: by their turns, "
            "dialogues begin or break in the middle, unlike those of training, so that contexts "
            "are missing or wrong. Pass whole dialogues; to split or filter rows, as in "
            "cross-validation, make the context first: with_context(X, turns=…), and "
            "context_turns=0",
            UserWarning,
            stacklevel=4,
        )


def known_turns(summary: Mapping[str, int]) -> dict[str, int]:
    """The entries of ``data_summary_`` that :func:`warn_of_cut_context` reads."""
    return {name: summary[name] for name in (ALL, FIRST, CUT) if name in summary}


def checked_summary(summary: dict[str, int]) -> dict[str, int]:
    """What a file says is a ``data_summary_``; an exception if its numbers cannot be."""
    if not all(type(value) is int for value in summary.values()):
        raise ValueError("its numbers of utterances are not ints")
    if CUT in summary and not 0 <= summary[CUT] <= summary[ALL] > 0:
        raise ValueError(f"of {summary[ALL]} utterances {summary[CUT]} are {CUT}")
    float(summary.get(FIRST, 0))  # an OverflowError of numbers that no turn can be
    return summary


def _begins_and_gaps(dialogues: Dialogues) -> tuple[NDArray[np.float64], int]:
    """The first turn of each dialogue, and how many others are not one after another."""
    assert dialogues.turn_number is not None
    order = np.lexsort((dialogues.turn, dialogues.group))
    turn, same = dialogues.turn_number[order], np.diff(dialogues.group[order]) == 0
    return turn[np.r_[True, ~same]], int((same & (np.diff(turn) != 1)).sum())
