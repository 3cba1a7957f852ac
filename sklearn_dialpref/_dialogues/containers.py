"""Any container of labels or texts as a numpy array, and where values are missing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sized
from reprlib import repr as short_repr
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

WAYS_OUT = {
    **dict.fromkeys(("str", "bytes", "bytearray", "memoryview"), "put it into a list"),
    **dict.fromkeys(("set", "frozenset"), "a set has no order; pass a list"),
    "dict": "pass its values as a list, or pd.DataFrame(…) for a dict of columns",
    "RecordBatch": "pass pa.Table.from_batches([…])",
}
NOT_OF_NUMPY = (nw.Int128, nw.UInt128)
EXACT = 2**53  # from here on a float stands for several whole numbers


# -- missing values -------------------------------------------------------------------------


def is_missing_value(value: Any, pandas_nulls: tuple[Any, ...] = ()) -> bool:
    if isinstance(value, str):  # first, as most values are
        return False
    if value is None or any(value is null for null in pandas_nulls):
        return True
    return bool(np.isscalar(value) and value != value)  # NaN differs from itself


def missing_in(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind in "fcmM":
        return np.isnan(values)
    if values.dtype.kind != "O":
        return np.zeros(values.shape, dtype=bool)
    pandas = sys.modules.get("pandas")
    nulls = (getattr(pandas, "NA", None), getattr(pandas, "NaT", None))
    flat = (is_missing_value(value, nulls) for value in values.ravel())
    return np.fromiter(flat, dtype=bool, count=values.size).reshape(values.shape)


# -- containers -----------------------------------------------------------------------------


def label_array(y: Any, name: str = "labels") -> NDArray[Any]:
    """Labels or texts as a numpy array that keeps their type.

    Missing ones do not turn ints to floats, and members of a str Enum become plain strings.
    """
    native = nw.from_native(y, pass_through=True, allow_series=True)
    if isinstance(native, nw.LazyFrame):
        raise ValueError(f"{name} came as a lazy frame; collect() it first")
    if isinstance(native, nw.DataFrame):
        return _frame_array(native)
    if isinstance(native, nw.Series):
        return series_array(native)
    refuse_no_sequence(y, name)
    if isinstance(y, np.ma.MaskedArray):
        labels = y.data.astype(object)
        labels[np.ma.getmaskarray(y)] = None
        return _with_plain_strings(labels)
    if not isinstance(y, np.ndarray):
        if hasattr(y, "tolist"):  # arrays of pandas and pyarrow, whose ints beside nulls stay ints
            y = y.tolist()
        if not hasattr(y, "__array__"):
            return _listed(list(y), name)
    array = np.asarray(y)
    if array.dtype.kind == "T":  # StringDType has its own nulls
        array = array.astype(object)
    return _with_plain_strings(array)


def refuse_no_sequence(y: Any, name: str) -> None:
    """Refuse what has no rows, rows in no order, or rows that are not what they look like."""
    kind = next((cls.__name__ for cls in type(y).__mro__ if cls.__name__ in WAYS_OUT), None)
    if kind is not None:
        raise ValueError(
            f"{name} must be a sequence, one entry per utterance, but got {short_repr(y)} of type "
            f"{type(y).__name__}; {WAYS_OUT[kind]}"
        )
    sequence = (isinstance(y, Iterable) and isinstance(y, Sized)) or hasattr(y, "__array__")
    if not sequence or getattr(y, "ndim", 1) == 0:
        raise ValueError(
            f"{name} must be a sequence, one entry per utterance, but got {short_repr(y)}; pass a "
            "list, an array or a column of a DataFrame"
        )
    if getattr(getattr(y, "dtype", None), "names", None):
        raise ValueError(f"{name} came as a structured array; pass pd.DataFrame(…) of it")


def series_array(series: nw.Series[Any]) -> NDArray[Any]:
    """A column as an array; ints and bools beside nulls, and all text, as objects."""
    numeric = series.dtype.is_numeric() and series.dtype not in NOT_OF_NUMPY
    if numeric or series.dtype == nw.Boolean:
        if not series.is_null().any():
            return series.to_numpy()
        if series.dtype.is_float():
            return series.cast(nw.Float64).fill_null(float("nan")).to_numpy()
    return _with_plain_strings(_object_array(series.to_list()))


def _frame_array(frame: nw.DataFrame[Any]) -> NDArray[Any]:
    columns = [series_array(frame.get_column(name)) for name in frame.columns]
    kinds = {column.dtype.kind for column in columns}
    dtype = np.result_type(*columns) if len(kinds) == 1 and "O" not in kinds else object
    array = np.empty((len(frame), len(columns)), dtype=dtype)
    for position, column in enumerate(columns):
        array[:, position] = column
    return array


def _object_array(values: list[Any]) -> NDArray[Any]:
    return np.fromiter(values, dtype=object, count=len(values))


def _with_plain_strings(values: NDArray[Any]) -> NDArray[Any]:
    """Members of a str Enum as the text that they equal: numpy would write their names, cut."""
    if values.dtype.kind != "O" or not any(
        isinstance(value, str) and type(value) is not str for value in values.flat
    ):
        return values
    plain = [str.__str__(value) if isinstance(value, str) else value for value in values.flat]
    return _object_array(plain).reshape(values.shape)


# -- plain sequences ------------------------------------------------------------------------


def _listed(values: list[Any], name: str) -> NDArray[Any]:
    """A plain sequence as an array: strings stay objects, so do numbers mixed with others."""
    values = [v.item() if isinstance(v, np.ndarray) and v.ndim == 0 else v for v in values]
    widths = {len(value) for value in values if _is_row(value)}
    if not widths:
        return _column(values)
    if len(widths) > 1:
        raise ValueError(f"rows of {name} differ in length: {sorted(widths)}")
    width = widths.pop()
    rows = [_row_of_labels(row, value, width, name) for row, value in enumerate(values)]
    entries = [entry for row in rows for entry in row]
    if any(_is_row(entry) for entry in entries):
        raise ValueError(f"{name} must be 1-D or 2-D, but its rows hold lists of lists")
    return _column(entries).reshape(len(rows), width)


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _row_of_labels(row: int, value: Any, width: int, name: str) -> list[Any]:
    if _is_row(value):
        return list(value)
    if missing_in(_object_array([value]))[0]:
        return [None] * width
    raise ValueError(
        f"{name} are rows of {width} entries, but row {row} holds {short_repr(value)}; give it as "
        "many, or None if all of them are missing"
    )


def _column(values: list[Any]) -> NDArray[Any]:
    numbers = all(is_number(v) or isinstance(v, np.bool_) for v in values)
    one_kind = len({isinstance(v, bool | np.bool_) for v in values}) <= 1
    if numbers and one_kind and not loses_digits(values):
        return np.asarray(values)
    return _with_plain_strings(_object_array(values))


def is_number(value: Any) -> bool:
    """Whether this is a real number; numpy calls a timedelta an integer."""
    number = isinstance(value, int | float | np.integer | np.floating)
    return number and not isinstance(value, np.timedelta64)


def loses_digits(values: list[Any]) -> bool:
    """Whether numpy would round whole numbers, as it makes floats of them."""
    ints = [int(v) for v in values if is_number(v) and not isinstance(v, float | np.floating)]
    if not any(abs(v) >= EXACT for v in ints):
        return False
    return len(ints) < len(values) or np.asarray(ints).dtype.kind not in "iu"
