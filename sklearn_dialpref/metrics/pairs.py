"""Are pairs of utterances of a dialogue ordered as people order them."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_consistent_length

from sklearn_dialpref._dialogues.validation import (
    codes_of,
    indicator_table,
    is_missing,
    label_array,
)

from ._columns import as_columns, class_codes


def pairwise_accuracy_score(
    y_true: Any,
    y_score: Any,
    groups: Any,
    *,
    classes: Any = None,
    average: Literal["macro", "micro"] | None = "macro",
) -> float | np.ndarray:
    r"""Share of the pairs inside dialogues that the scores order rightly.

    A pair for class c is two utterances of one dialogue, both labelled, one of class c and one
    not. It is ordered rightly if the former has the higher score for c; a tie counts one half.
    Levels that differ between dialogues, or between classes, do not matter: this is what a
    preference loss on pairs inside dialogues learns.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, K)
        Human labels; missing (None, NaN, ``pd.NA``) ones are skipped. 2-D: 0, 1 or missing for
        each of K labels.
    y_score : array-like of shape (n, K) or (n,)
        Score for each class, such as the output of ``predict_proba`` or ``decision_function``;
        only its order matters. 1-D: scores for the second of two classes.
    groups : array-like of shape (n,)
        The dialogue of each row.
    classes : array-like of shape (K,), default=None
        The class of each column of `y_score`. By default the column names of a DataFrame if they
        are the labels, else the sorted labels in `y_true`, which must then hold all K. Not for
        2-D `y_true`.
    average : {"macro", "micro"} or None, default="macro"
        - ``"macro"``: the mean over the classes that have pairs, each class alike;
        - ``"micro"``: over all pairs of all classes, each pair alike;
        - None: a score for each class.

    Returns
    -------
    score : float or ndarray of shape (K,)
        In [0, 1]; 1 is best, 0.5 is chance.

    Raises
    ------
    ValueError
        If lengths or classes do not fit, a score is not finite, or `average` is unknown.

    Warns
    -----
    UndefinedMetricWarning
        If there is no pair, or for ``average=None`` no pair for some class. The score is NaN.

    See Also
    --------
    sklearn.metrics.roc_auc_score : The same over pairs of all rows.

    Notes
    -----
    With :math:`P_c = \{(i, j): g_i = g_j, y_i = c, y_j \ne c\}` the score of class c is

    .. math:: A_c = \frac{1}{|P_c|} \sum_{(i, j) \in P_c}
        [s_{ic} > s_{jc}] + \tfrac{1}{2} [s_{ic} = s_{jc}],

    the area under the ROC curve restricted to pairs inside a dialogue. The sum over a dialogue
    is the Mann-Whitney statistic U, computed exactly from average ranks [1]_ in
    :math:`O(K n \log n)` time and :math:`O(n)` memory.

    References
    ----------
    .. [1] Hanley and McNeil, "The meaning and use of the area under a receiver operating
       characteristic (ROC) curve", Radiology 143 (1982).

    Examples
    --------
    >>> from sklearn_dialpref.metrics import pairwise_accuracy_score
    >>> y_true = ["pos", "neg", None, "pos", "neg"]
    >>> y_score = [[0.4, 0.6], [0.5, 0.5], [0.2, 0.8], [0.9, 0.1], [0.8, 0.2]]
    >>> pairwise_accuracy_score(y_true, y_score, groups=["a", "a", "a", "b", "b"])
    0.5
    """
    if average not in ("macro", "micro", None):
        raise ValueError(f"average must be 'macro', 'micro' or None, got {average!r}")
    score = as_columns(y_score, "y_score", lambda second: -second)
    labels = label_array(y_true)
    group = _group_codes(groups)
    check_consistent_length(labels, score, group)
    if labels.ndim == 2 and np.ndim(y_score) == 1:
        raise ValueError(
            f"y_true has shape {labels.shape} but y_score is 1-D; pass a score for each label"
        )
    truth = _truth_table(labels, score.shape[1], classes, y_score)
    counts = [
        [counted.sum() for counted in ordered_pairs(column, values, group)]
        for column, values in zip(truth.T, score.T, strict=True)
    ]
    right, pairs = np.transpose(counts)
    if average == "micro":
        right, pairs = right.sum(keepdims=True), pairs.sum(keepdims=True)
    defined = pairs > 0
    if not defined.any() or (average is None and not defined.all()):
        warnings.warn(
            "pairwise_accuracy_score is NaN where no dialogue holds two labelled utterances, one"
            f" of the class and one not: {np.count_nonzero(~defined)} of {len(defined)} scores",
            UndefinedMetricWarning,
            stacklevel=2,
        )
    result = np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=defined)
    if average is None:
        return result
    return float(result[defined].mean()) if defined.any() else float("nan")


def _group_codes(groups: Any) -> NDArray[np.int64]:
    dialogue = label_array(groups)
    if dialogue.ndim != 1:
        raise ValueError(
            f"groups must hold the dialogue of each row, but has shape {dialogue.shape}; pass one"
            " column"
        )
    if is_missing(dialogue).any():
        raise ValueError("groups has missing values; give each row its dialogue")
    try:
        return codes_of(dialogue)
    except TypeError:
        raise ValueError(
            "groups must hold ids that can be compared, such as str or int, but holds"
            f" {dialogue.tolist()[:3]} ..."
        ) from None


def _truth_table(labels: np.ndarray, n_columns: int, classes: Any, y_score: Any) -> np.ndarray:
    """Return 1, 0 or NaN (missing) for each row and class."""
    if labels.ndim == 2:
        if labels.shape[1] != n_columns:
            raise ValueError(
                f"y_true has {labels.shape[1]} labels but y_score has {n_columns} columns; pass"
                " a score for each label"
            )
        return indicator_table(labels, "y_true")
    if labels.ndim != 1:
        raise ValueError(
            f"y_true must be of shape (n,), or (n, n_labels), but has shape {labels.shape}"
        )
    missing = is_missing(labels)
    code = class_codes(labels, missing, n_columns, classes, y_score)
    return np.where(missing[:, None], np.nan, code[:, None] == np.arange(n_columns))


def ordered_pairs(
    truth: np.ndarray, score: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count each dialogue's pairs of one class: those ordered rightly (ties: a half), and all.

    ``truth`` holds 1, 0 or NaN (missing) and ``group`` codes from 0; both answers have an entry
    for each code.
    """
    n_groups, known = int(group.max(initial=-1)) + 1, ~np.isnan(truth)
    order = np.lexsort((score[known], group[known]))
    positive, score, group = (a[known][order] for a in (truth == 1, score, group))
    n = len(order)
    if n == 0:
        return np.zeros(n_groups), np.zeros(n_groups)
    new_group = np.r_[True, group[1:] != group[:-1]]
    new_value = new_group | np.r_[True, score[1:] != score[:-1]]
    first, tie = np.flatnonzero(new_value), np.cumsum(new_value) - 1
    start, member = np.flatnonzero(new_group), np.cumsum(new_group) - 1
    end = np.r_[first[1:], n]
    # 0-based average rank inside the dialogue; a tie shares the mean of its first and last.
    rank = (first + end - 1)[tie] / 2 - start[member]
    n_positive = np.bincount(group, weights=positive, minlength=n_groups)
    n_negative = np.bincount(group, minlength=n_groups) - n_positive
    rank_sum = np.bincount(group, weights=rank * positive, minlength=n_groups)
    return rank_sum - n_positive * (n_positive - 1) / 2, n_positive * n_negative
