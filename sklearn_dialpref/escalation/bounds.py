"""What accuracy labels of whole dialogues can promise, and the threshold that keeps a promise."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, t

__all__ = ["accuracy_bound", "last_passing"]

Rows = NDArray[np.bool_]
Groups = NDArray[np.int64]


def accuracy_bound(right: Rows, groups: Groups, confidence: float) -> float:
    """Lower confidence bound of an accuracy, measured on whole dialogues.

    That of Clopper and Pearson, for as many independent rows as those of the dialogues are worth
    (Korn and Graubard, "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data", Survey Methodology, 1998).

    Parameters
    ----------
    right : ndarray of bool, shape (n,)
        Whether each answer is right.
    groups : ndarray of int, shape (n,)
        Dialogue of each row.
    confidence : float
        Of the bound, in (0, 1).

    Returns
    -------
    float
        0 for rows of a single dialogue.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.escalation.bounds import accuracy_bound
    >>> right = np.arange(100) >= 5
    >>> round(accuracy_bound(right, np.arange(100), 0.95), 3)  # independent rows
    0.898
    >>> round(accuracy_bound(right, np.arange(100) // 10, 0.95), 3)  # of ten dialogues
    0.751
    """
    rows = effective_rows(right, groups, confidence)
    n_right = float(right.mean()) * rows if rows else 0.0
    return float(beta.ppf(1 - confidence, n_right, rows - n_right + 1)) if n_right else 0.0


def effective_rows(right: Rows, groups: Groups, confidence: float) -> float:
    """How many independent rows those of the dialogues are worth, at most as many as there are."""
    n_rows = len(right)
    codes = np.unique(groups, return_inverse=True)[1]
    n_groups = int(codes.max(initial=-1)) + 1
    if n_groups < 2:
        return 0.0
    share = right.mean()
    sums = np.bincount(codes, right - share)
    variance = n_groups / (n_groups - 1) * (sums**2).sum() / n_rows**2
    if_independent = share * (1 - share) / (n_rows - 1)
    rows = n_rows * min(1.0, if_independent / variance) if variance else n_rows
    # the variance is itself estimated from the dialogues
    few = t.ppf(confidence, n_rows - 1) / t.ppf(confidence, n_groups - 1)
    return float(rows * few**2)


def last_passing(
    outcomes: Iterable[tuple[Rows, Groups]], target: float, confidence: float
) -> tuple[int | None, float]:
    """The last of a sequence whose bound is not below the target, before any that is.

    Tests that follow each other until the first fails need no correction for their number
    (Angelopoulos et al., "Learn then test", arXiv:2110.01052), if the sequence does not depend
    on whether answers are right.

    Parameters
    ----------
    outcomes : iterable of (right, groups)
        Of each step; from the one that will most likely pass.
    target, confidence : float

    Returns
    -------
    index : int or None
        None if the first fails.
    bound : float
        Of this step, or of the first if it fails.
    """
    passed, reached = None, 0.0
    for step, (right, groups) in enumerate(outcomes):
        bound = accuracy_bound(right, groups, confidence)
        if bound < target:
            return passed, bound if passed is None else reached
        passed, reached = step, bound
    return passed, reached
