"""When enough members have answered: a sequential rule with one threshold.

The threshold is a lead, in answers: a row is sure once the summed score of its top class exceeds
that of the second by so much. This is Wald's sequential test for answers that are independent
and equally likely to be any of the wrong classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ensemble import FEWEST_DIALOGUES, FEWEST_ROWS, held_out_losses

__all__ = [
    "DEFAULT_LEAD",
    "asking_order",
    "choose_threshold",
    "is_sure",
    "lead",
    "stopped",
]

Scores = NDArray[np.float64]

DEFAULT_LEAD = 3.5  # four more votes, or about as many soft scores that are close to 1
SMALLEST_LEAD = 1.5  # below it a single answer could decide
TOLERANCE = 0.05  # nats of log-loss against the vote of all members
ROUNDING = 1e-9  # of summed scores


def asking_order(n_models: int, n_prompts: int) -> NDArray[np.int64]:
    """Positions of the members in the order in which they should be asked.

    Models take turns, because prompts of the same model repeat its mistakes: their agreement
    says less than that of different models.

    Parameters
    ----------
    n_models, n_prompts : int
        The prompts of a model stand side by side among the members.

    Returns
    -------
    ndarray of int, shape (n_models * n_prompts,)

    Examples
    --------
    >>> from sklearn_dialpref.annotation.stopping import asking_order
    >>> asking_order(n_models=2, n_prompts=3)
    array([0, 3, 1, 4, 2, 5])
    """
    return np.arange(n_models * n_prompts).reshape(n_models, n_prompts).T.ravel()


def lead(scores: Scores, *, multilabel: bool = False) -> Scores:
    """Lead of the top class over the second, in answers.

    Parameters
    ----------
    scores : ndarray of shape (n, A, K)
        NaN where a member was not asked or gave no answer, which speaks for no class.
    multilabel : bool, default=False
        Whether each column is a yes-or-no question of its own. The lead is then that of the
        label whose lead is smallest.

    Returns
    -------
    ndarray of shape (n,)
        0 where no member answered.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.annotation.stopping import lead
    >>> lead(np.array([[[1.0, 0.0], [0.75, 0.25]], [[1.0, 0.0], [np.nan, np.nan]]]))
    array([1.5, 1. ])
    """
    return _margin(np.nansum(_ballots(scores, multilabel), axis=1), multilabel)


def is_sure(scores: Scores, threshold: float, *, multilabel: bool = False) -> NDArray[np.bool_]:
    """Which rows need no further answer.

    Parameters
    ----------
    scores : ndarray of shape (n, A, K)
        As for :func:`lead`.
    threshold : float
        Smallest lead that is enough, in answers: 2 asks until two more answers speak for a
        class than for any other.
    multilabel : bool, default=False
        Whether each column is a yes-or-no question of its own. All must be sure.

    Returns
    -------
    ndarray of bool, shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.annotation.stopping import is_sure
    >>> a, b, none = [1.0, 0.0], [0.0, 1.0], [np.nan, np.nan]
    >>> is_sure(np.array([[a, a, none], [a, b, none], [a, b, a]]), threshold=2)
    array([ True, False, False])
    """
    return lead(scores, multilabel=multilabel) >= threshold - ROUNDING


def stopped(
    scores: Scores,
    threshold: float,
    order: NDArray[np.int64] | None = None,
    *,
    multilabel: bool = False,
) -> Scores:
    """The scores that would be there if no member had been asked about a row that was sure.

    Parameters
    ----------
    scores : ndarray of shape (n, A, K)
        Of all members; NaN where a member gave no answer.
    threshold : float
        As for :func:`is_sure`.
    order : ndarray of int, shape (A,), default=None
        Positions of the members in the order of asking. None: as they stand.
    multilabel : bool, default=False
        As for :func:`is_sure`.

    Returns
    -------
    ndarray of shape (n, A, K)
        A copy, NaN where a member would not have been asked.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.annotation.stopping import stopped
    >>> stopped(np.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]), threshold=2)
    array([[[ 1.,  0.],
            [ 1.,  0.],
            [nan, nan]]])
    """
    turns = np.arange(scores.shape[1]) if order is None else order
    sums = np.nancumsum(_ballots(scores[:, turns], multilabel), axis=1)
    sure = _margin(sums, multilabel) >= threshold - ROUNDING
    unasked = np.zeros_like(sure)
    unasked[:, turns[1:]] = np.logical_or.accumulate(sure, axis=1)[:, :-1]
    return np.where(unasked[:, :, None], np.nan, scores)


def choose_threshold(
    scores: Scores,
    y: NDArray[Any],
    groups: NDArray[np.int64],
    order: NDArray[np.int64] | None = None,
    *,
    multilabel: bool = False,
    seed: int = 0,
) -> float:
    """The lead that human labels speak for; the default unless they clearly speak for another.

    The measure of a threshold is the rise in log-loss against the vote of all members, each with
    a temperature of its own, on dialogues that were held out in learning it. From 3.5, the
    threshold is raised while this rise is above 0.05 nats by more than one standard error.
    Otherwise it is lowered while the rise is below 0.05 nats by more than one standard error.

    Parameters
    ----------
    scores : ndarray of shape (n, A, K)
        Of all members for rows with a human label; NaN where a member gave no answer.
    y : ndarray of int, shape (n,)
        Position of the human label among the classes. Where ``multilabel``: 0, 1 or NaN, of
        shape (n, K).
    groups : ndarray of int, shape (n,)
        Dialogue of each row.
    order : ndarray of int, shape (A,), default=None
        Positions of the members in the order of asking. None: as they stand.
    multilabel : bool, default=False
        Whether each column is a yes-or-no question of its own.
    seed : int, default=0
        Of the folds.

    Returns
    -------
    float
        Half a vote below a whole number, so that answers with soft scores can reach it. 3.5 with
        fewer than 20 rows that have a label and an answer, or 5 dialogues.
    """
    known = ~np.isnan(scores[:, :, 0]).all(axis=1)
    if multilabel:
        known &= ~np.isnan(y).all(axis=1)
    scores, y, groups = scores[known], y[known], groups[known]
    if len(y) < FEWEST_ROWS or len(np.unique(groups)) < FEWEST_DIALOGUES:
        return DEFAULT_LEAD
    of_all = _row_losses(scores, y, groups, multilabel, seed)

    def excess(threshold: float) -> tuple[float, float]:
        """Rise in log-loss above what is tolerated, and its standard error."""
        asked = stopped(scores, threshold, order, multilabel=multilabel)
        rise = _row_losses(asked, y, groups, multilabel, seed) - of_all
        return rise.mean() - TOLERANCE, rise.std(ddof=1) / np.sqrt(len(rise))

    threshold = DEFAULT_LEAD
    mean, error = excess(threshold)
    while mean > error:
        threshold += 1
        mean, error = excess(threshold)
    while threshold > SMALLEST_LEAD:
        mean, error = excess(threshold - 1)
        if mean > -error:
            break
        threshold -= 1
    return threshold


def _ballots(scores: Scores, multilabel: bool) -> Scores:
    """What each answer adds to a class or, with several labels, to yes rather than no."""
    return 2 * scores - 1 if multilabel else scores


def _margin(sums: Scores, multilabel: bool) -> Scores:
    """Lead of the top class, or the smallest lead of a label, along the last axis."""
    if multilabel:
        return np.abs(sums).min(axis=-1)
    top = np.partition(sums, -2, axis=-1)
    return top[..., -1] - top[..., -2]


def _row_losses(
    scores: Scores,
    y: NDArray[Any],
    groups: NDArray[np.int64],
    multilabel: bool,
    seed: int,
) -> Scores:
    """Held-out log-loss of each row, with a temperature; the mean over the labels it has."""
    if not multilabel:
        return held_out_losses(scores, y, groups, ("temperature",), seed)
    rows, labels = np.nonzero(~np.isnan(y))
    yes = scores[rows, :, labels]
    questions = np.stack([1 - yes, yes], axis=2)
    answers = y[rows, labels].astype(np.int64)
    losses = held_out_losses(questions, answers, groups[rows], ("temperature",), seed)
    return np.bincount(rows, losses) / np.bincount(rows)
