"""Accuracy on the rows that have a label; without scikit-learn and torch, for serving."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import (
    indicator_table,
    label_array,
    wholly_known,
)

__all__ = ["accuracy", "rows_with_labels"]


def rows_with_labels(y: Any, n_rows: int) -> NDArray[np.bool_]:
    """Which rows have all their labels; a ValueError where there are not as many rows."""
    known = wholly_known(y)
    if len(known) != n_rows:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: [{n_rows}, {len(known)}]"
        )
    return known


def accuracy(
    y: Any, predicted: NDArray[Any], sample_weight: Any, rows: NDArray[np.bool_] | None = None
) -> float:
    """Share of the rows that are predicted right; multilabel: right in every label.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, n_labels)
        Labels, missing where None, NaN or pd.NA.
    predicted : ndarray of shape (n,) or (n, n_labels)
    sample_weight : array-like of shape (n,), or None
    rows : ndarray of bool, of shape (n,), default=None
        Which rows count; None: those with a label.
    """
    known = rows_with_labels(y, len(predicted)) if rows is None else rows
    if not known.any():
        raise ValueError("score needs labels, but all of y is missing")
    right = _truth(y, known, predicted) == np.asarray(predicted[known].tolist())
    right = right.all(axis=1) if right.ndim == 2 else right
    return float(np.average(right, weights=_weights(sample_weight, known)))


def _truth(y: Any, known: NDArray[np.bool_], predicted: NDArray[Any]) -> NDArray[Any]:
    """The known labels, if they can be compared with what is predicted."""
    labels = label_array(y)
    if labels.ndim == 2 and labels.shape[1] == 1 and predicted.ndim == 1:
        labels = labels[:, 0]  # a table of one column
    if labels.shape != predicted.shape:
        raise ValueError(
            f"y has the shape {labels.shape}, but predictions have {predicted.shape}; pass labels "
            "in the form that fit was given"
        )
    if labels.ndim == 2:
        return indicator_table(labels, "y")[known]
    truth, answers = np.asarray(labels[known].tolist()), np.asarray(predicted[known].tolist())
    if (truth.dtype.kind in "US") != (answers.dtype.kind in "US"):
        raise ValueError(
            f"y holds labels such as {truth[0]!r}, but predictions are such as {answers[0]!r}; "
            "pass labels of the type that fit was given"
        )
    return truth


def _weights(sample_weight: Any, known: NDArray[np.bool_]) -> NDArray[Any] | None:
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    if weights.shape != known.shape:
        raise ValueError(
            f"sample_weight has the shape {weights.shape}, but it must be {known.shape}"
        )
    return weights[known]
