"""The answers of an ensemble where any number of labels may apply: each label for itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ensemble
from .ensemble import Combination, Scores

__all__ = ["agreement", "combine", "fit_combination", "plain", "votes"]


def plain(n_members: int, n_labels: int) -> list[Combination]:
    """The mean of the members, for each label."""
    return [Combination.plain(n_members, 2)] * n_labels


def combine(scores: Scores, how: list[Combination]) -> Scores:
    """The probability of each label; NaN where no member answered.

    Parameters
    ----------
    scores : ndarray of shape (n, A, L)
    how : list of Combination
        Of no and yes, one for each label.

    Returns
    -------
    ndarray of shape (n, L)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.annotation.ensemble import Combination
    >>> from sklearn_dialpref.annotation.several_labels import combine
    >>> scores = np.array([[[1.0, 0.0], [0.5, 0.5]], [[np.nan, np.nan], [0.2, 0.8]]])
    >>> combine(scores, [Combination.plain(2, 2)] * 2)
    array([[0.75, 0.25],
           [0.2 , 0.8 ]])
    """
    columns = [
        ensemble.combine(_yes_or_no(scores, label), one)[:, 1] for label, one in enumerate(how)
    ]
    return np.stack(columns, axis=1)


def fit_combination(
    scores: Scores, y: Scores, groups: NDArray[np.int64], **options: Any
) -> list[Combination]:
    """The combination of each label that human labels speak for.

    Parameters
    ----------
    scores : ndarray of shape (n, A, L)
    y : ndarray of shape (n, L)
        0, 1, or NaN where unknown.
    groups : ndarray of int, shape (n,)
    **options : dict
        As of :func:`~sklearn_dialpref.annotation.ensemble.fit_combination`.

    Returns
    -------
    list of Combination
    """
    combinations = []
    for label in range(scores.shape[2]):
        known = ~np.isnan(y[:, label])
        labels = y[known, label].astype(np.int64)
        chosen = _yes_or_no(scores[known], label)
        combinations.append(ensemble.fit_combination(chosen, labels, groups[known], **options))
    return combinations


def votes(scores: Scores, classes: NDArray[Any]) -> NDArray[Any]:
    """The labels that each member gives at least 0.5, as a tuple; None where it gave no answer.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dialpref.annotation.several_labels import votes
    >>> votes(np.array([[[0.9, 0.6], [np.nan, np.nan]]]), np.array(["a", "b"])).tolist()
    [[('a', 'b'), None]]
    """
    labels = classes.tolist()
    given = np.full(scores.shape[:2], None, dtype=object)
    for row, member in zip(*np.nonzero(~np.isnan(scores[:, :, 0])), strict=True):
        chosen = np.flatnonzero(scores[row, member] >= 0.5)
        given[row, member] = tuple(labels[label] for label in chosen)
    return given


def agreement(scores: Scores) -> Scores:
    """Share of the members with an answer on the side of most, averaged over the labels."""
    given = ~np.isnan(scores[:, :, :1])
    weights = np.full(scores.shape[1], 1 / scores.shape[1])
    yes = ensemble.weighted_mean(np.where(given, (scores >= 0.5).astype(float), np.nan), weights)
    return np.maximum(yes, 1 - yes).mean(axis=1)


def _yes_or_no(scores: Scores, label: int) -> Scores:
    yes = scores[:, :, label]
    return np.stack([1 - yes, yes], axis=2)
