"""Labels and scores of metrics, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import narwhals as nw
import numpy as np
from sklearn.utils import check_array

from sklearn_dialpref._dialogues.validation import is_missing, label_array

from ._state_values import as_list


def labelled_rows(labels: np.ndarray, caller: str) -> np.ndarray:
    """Return which rows are labelled, in all columns; refuse if none is."""
    missing = is_missing(labels)
    labelled = np.logical_not(missing if missing.ndim == 1 else missing.any(axis=1))
    if not labelled.any():
        raise ValueError(
            f"{caller} needs rows with a human label, but all {len(labelled)} rows have a missing"
            " one; pass labelled rows, or fold the data with LabelledGroupKFold"
        )
    return labelled


def typed(labels: np.ndarray) -> np.ndarray:
    """Labels of ``label_array`` without missing ones in a dtype of their own, of one type."""
    if labels.dtype != object:
        return labels
    values = labels.ravel().tolist()
    n_strings = sum(isinstance(value, str) for value in values)
    if n_strings == len(values) > 0:
        return np.asarray(values).reshape(labels.shape)
    for row, value in enumerate(values):
        if as_list(value) is not None or isinstance(value, Mapping):
            raise ValueError(f"y_true holds {value!r} (row {row}), which is no label; pass one")
    if n_strings or len({isinstance(value, bytes) for value in values}) > 1:
        kinds = sorted({type(value).__name__ for value in values})
        raise ValueError(f"y_true mixes labels of the types {kinds}; convert them to one")
    return np.asarray(labels.tolist())


def as_columns(scores: Any, name: str, first_from_second: Callable[..., Any]) -> np.ndarray:
    """Check scores for finiteness and give those of two classes a column each."""
    table = check_array(scores, ensure_2d=False, dtype=np.float64, input_name=name)
    if table.ndim == 1:
        return np.column_stack([first_from_second(table), table])
    return table


def class_codes(
    labels: np.ndarray, missing: np.ndarray, n_columns: int, classes: Any, scores: Any = None
) -> np.ndarray:
    """Return the column of each label's class, -1 for a missing one.

    Without ``classes``, the columns are named by the DataFrame ``scores``, or are the sorted
    labels.
    """
    known = labels[~missing].tolist()
    names, source = _column_classes(known, classes, scores)
    if len(names) != n_columns:
        raise ValueError(
            f"The scores have {n_columns} columns but {source} {len(names)} classes {names};"
            " pass the classes of the columns, in their order, as classes=..."
        )
    code_of = {name: code for code, name in enumerate(names)}
    if len(code_of) < len(names):
        raise ValueError(f"classes must differ, but are {names}; name each column's class once")
    if unknown := [value for value in dict.fromkeys(known) if value not in code_of]:
        raise ValueError(f"y_true holds {unknown}, which are not among the classes {names}")
    codes = np.full(len(labels), -1)
    codes[~missing] = [code_of[value] for value in known]
    return codes


def _column_classes(known: list[Any], classes: Any, scores: Any) -> tuple[list[Any], str]:
    try:
        labels = set(known)
        if classes is not None:
            names = label_array(classes)
            if names.ndim != 1 or is_missing(names).any():
                raise ValueError(f"classes must be a list of the class names, got {classes!r}")
            hash(tuple(names.tolist()))
            return names.tolist(), "classes names"
        frame = nw.from_native(scores, pass_through=True)
        if isinstance(frame, nw.DataFrame) and labels <= set(frame.columns):
            return list(frame.columns), "y_score names"
        return sorted(labels), "y_true holds"
    except TypeError:
        kinds = sorted({type(value).__name__ for value in known})
        raise ValueError(
            f"y_true holds labels of the types {kinds}, which cannot be sorted or compared; pass "
            "labels of one type, or classes=..."
        ) from None
