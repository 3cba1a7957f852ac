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
    y: Any,
    predicted: NDArray[Any],
    classes: NDArray[Any],
    sample_weight: Any,
    rows: NDArray[np.bool_] | None = None,
) -> float:
    """Share of the rows that are predicted right; multilabel: right in every label.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, n_labels)
        Labels, missing where None, NaN or pd.NA. Columns with the names of the classes may have
        any order.
    predicted : ndarray of shape (n,) or (n, n_labels)
    classes : ndarray of shape (n_classes,)
    sample_weight : array-like of shape (n,), or None
    rows : ndarray of bool, of shape (n,), default=None
        Which rows count; None: those with a label.
    """
    known = rows_with_labels(y, len(predicted)) if rows is None else rows
    if not known.any():
        raise ValueError(
            "score needs labels, but all of y is missing; in a cross-validation pass "
            "cv=LabelledGroupKFold(…), whose test folds hold labels"
        )
    right = _truth(_in_order(y, classes), known, predicted) == np.asarray(
        predicted[known].tolist()
    )
    right = right.all(axis=1) if right.ndim == 2 else right
    return float(np.average(right, weights=_weights(sample_weight, known)))


def _in_order(y: Any, classes: NDArray[Any]) -> Any:
    """The table with its columns in the order of the classes, if it names these."""
    names, order = list(getattr(y, "columns", ())), classes.tolist()
    return y[order] if names != order and sorted(map(str, names)) == sorted(order, key=str) else y


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
            f"y holds labels such as {truth[0].item()!r}, but predictions are such as "
            f"{answers[0].item()!r}; "
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
    weights = weights[known].astype(np.float64)
    if not np.isfinite(weights).all() or not weights.sum():
        raise ValueError(
            "sample_weight must be finite, and not all 0, on the rows with a label; got "
            f"{weights.tolist()[:5]} on the first of them"
        )
    return weights
