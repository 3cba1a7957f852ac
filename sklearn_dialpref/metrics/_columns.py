"""Labels and scores of metrics, as arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils import check_array

from sklearn_dialpref._dialogues.validation import is_missing, label_array


def labelled_rows(labels: np.ndarray, caller: str) -> np.ndarray:
    """Return which rows are labelled, in all columns; refuse if none is."""
    missing = is_missing(labels)
    labelled = np.logical_not(missing if missing.ndim == 1 else missing.any(axis=1))
    if not labelled.any():
        raise ValueError(
            f"{caller} needs rows with a human label, but all {len(labelled)} rows have a missing"
            " one; pass labelled rows, or fold the data with LabelledGroupKFold."
        )
    return labelled


def typed(labels: np.ndarray) -> np.ndarray:
    """Labels without missing ones in a dtype of their own."""
    return np.asarray(labels.tolist()) if labels.dtype == object else labels


def as_columns(scores: Any, name: str, first_from_second: Callable[..., Any]) -> np.ndarray:
    """Check scores for finiteness and give those of two classes a column each."""
    table = check_array(scores, ensure_2d=False, dtype=np.float64, input_name=name)
    if table.ndim == 1:
        return np.column_stack([first_from_second(table), table])
    return table


def class_codes(
    labels: np.ndarray, missing: np.ndarray, n_columns: int, classes: Any
) -> np.ndarray:
    """Return the column of each label's class, -1 for a missing one."""
    values, inverse = np.unique(typed(labels[~missing]), return_inverse=True)
    names = (values if classes is None else label_array(classes)).tolist()
    if len(names) != n_columns:
        source = "y_true holds" if classes is None else "classes names"
        raise ValueError(
            f"The scores have {n_columns} columns but {source} {len(names)} classes {names};"
            " pass the classes of the columns, in their order, as classes=..."
        )
    unknown = [value for value in values.tolist() if value not in names]
    if unknown:
        raise ValueError(f"y_true holds {unknown}, which are not among the classes {names}.")
    code = np.full(len(labels), -1)
    code[~missing] = np.array([names.index(value) for value in values.tolist()], int)[inverse]
    return code
