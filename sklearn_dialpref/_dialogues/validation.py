"""Input validation for X: the forms of dialogues, and what counts as missing."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from .columns import Dialogues
from .texts import check_unicode

RESERVED = ("dialogue_id", "text", "turn", "speaker", "context")
FORMS = (
    "a DataFrame with columns 'dialogue_id' and 'text' (optional: 'turn', 'speaker', 'context'), "
    "a 2-D object array of (dialogue_id, text), or a 1-D sequence of str"
)
WANTS_FEATURES = (
    "encoder='precomputed' wants features: pass a 2-D numeric array or a DataFrame of numeric "
    "columns (and 'dialogue_id'), or choose another encoder"
)
NO_ROWS = "Found array with 0 sample(s) while a minimum of 1 is required in X."


# -- missing values -------------------------------------------------------------------------


def _is_missing_value(value: Any, pandas_nulls: tuple[Any, ...]) -> bool:
    if value is None or any(value is null for null in pandas_nulls):
        return True
    return bool(np.isscalar(value) and value != value)  # NaN differs from itself


def is_missing(y: Any) -> NDArray[np.bool_]:
    """Where labels are missing: None, NaN, NaT, pd.NA, or a null of a DataFrame library.

    Parameters
    ----------
    y : array-like, Series or DataFrame, of shape (n,) or (n, m)
        Labels of any type.

    Returns
    -------
    ndarray of bool, of the shape of ``y``

    Examples
    --------
    >>> from sklearn_dialpref._dialogues.validation import is_missing
    >>> is_missing(["a", None, float("nan")]).tolist()
    [False, True, True]
    """
    return missing_in(label_array(y))


def wholly_known(y: Any) -> NDArray[np.bool_]:
    """Rows with a label, or with all of their labels."""
    missing = is_missing(y)
    return np.asarray(~(missing.any(axis=1) if missing.ndim == 2 else missing))


def missing_in(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind in "fcmM":
        return np.isnan(values)
    if values.dtype.kind != "O":
        return np.zeros(values.shape, dtype=bool)
    pandas = sys.modules.get("pandas")
    nulls = (getattr(pandas, "NA", None), getattr(pandas, "NaT", None))
    flat = (_is_missing_value(value, nulls) for value in values.ravel())
    return np.fromiter(flat, dtype=bool, count=values.size).reshape(values.shape)


def label_array(y: Any) -> NDArray[Any]:
    """Labels as a numpy array that keeps their type: missing ones do not turn ints to floats."""
    native = nw.from_native(y, pass_through=True, allow_series=True)
    if isinstance(native, nw.LazyFrame):
        raise ValueError("labels came as a lazy frame; collect() it first")
    if isinstance(native, nw.DataFrame):
        columns = [_series_array(native.get_column(name)) for name in native.columns]
        kinds = {column.dtype.kind for column in columns}
        dtype = np.result_type(*columns) if len(kinds) == 1 and "O" not in kinds else object
        array = np.empty((len(native), len(columns)), dtype=dtype)
        for position, column in enumerate(columns):
            array[:, position] = column
        return array
    if isinstance(native, nw.Series):
        return _series_array(native)
    if isinstance(y, np.ma.MaskedArray):
        labels = y.data.astype(object)
        labels[np.ma.getmaskarray(y)] = None
        return labels
    if not isinstance(y, np.ndarray):
        if hasattr(y, "tolist"):  # arrays of pandas and pyarrow, whose ints beside nulls stay ints
            y = y.tolist()
        if not hasattr(y, "__array__"):
            return _listed(y)
        y = np.asarray(y)
    return y.astype(object) if y.dtype.kind == "T" else y  # StringDType has its own nulls


def _series_array(series: nw.Series[Any]) -> NDArray[Any]:
    if series.dtype.is_numeric() or series.dtype == nw.Boolean:
        if not series.is_null().any():
            return series.to_numpy()
        if series.dtype.is_float():
            return series.cast(nw.Float64).fill_null(float("nan")).to_numpy()
    return _object_array(series.to_list())


def _object_array(values: list[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _listed(y: Any) -> NDArray[Any]:
    """A plain sequence as an array: strings stay objects, so do numbers mixed with others."""
    if not isinstance(y, Iterable):
        raise ValueError(f"labels must be a sequence, one entry per utterance, but got {y!r}")
    values = list(y)
    widths = {len(v) for v in values if isinstance(v, list | tuple | np.ndarray)}
    if widths:
        if len(widths) > 1:
            raise ValueError(f"rows of labels differ in length: {sorted(widths)}")
        width = widths.pop()
        rows = [_row_of_labels(row, value, width) for row, value in enumerate(values)]
        return _listed([value for row in rows for value in row]).reshape(len(rows), width)
    numbers = all(isinstance(v, int | float | np.number | np.bool_) for v in values)
    if numbers and len({isinstance(v, bool | np.bool_) for v in values}) <= 1:
        return np.asarray(values)
    return _object_array(values)


def _row_of_labels(row: int, value: Any, width: int) -> list[Any]:
    if isinstance(value, list | tuple | np.ndarray):
        return list(value)
    if is_missing([value])[0]:
        return [None] * width
    raise ValueError(
        f"labels are rows of {width} entries, but row {row} holds {value!r}; give it as many, or "
        "None if all of them are missing"
    )


def indicator_table(labels: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Multilabel labels as 1, 0 and NaN for missing."""
    missing = missing_in(labels)
    try:
        table = np.where(missing, np.nan, labels).astype(np.float64)
    except (TypeError, ValueError):
        table = np.full(labels.shape, np.inf)
    bad = ~missing & (table != 0) & (table != 1)
    if bad.any():
        row = int(np.argmax(bad.any(axis=1)))
        raise ValueError(
            f"Unknown label type: a 2-D {name} means multilabel and must hold 0, 1 or missing, "
            f"but row {row} holds {labels[row].tolist()}; pass 1-D labels for one class per row"
        )
    return table


# -- dialogues ------------------------------------------------------------------------------


def check_dialogues(
    X: Any,
    *,
    precomputed: bool | None = None,
    estimator: Any = None,
    reset: bool = True,
) -> Dialogues:
    """Read any accepted form of ``X``; rows stay in the order given.

    Parameters
    ----------
    X : DataFrame, ndarray or sequence
        - a DataFrame (any that narwhals reads) with columns ``dialogue_id`` and ``text``, and
          optionally ``turn``, ``speaker`` and ``context``; others are ignored;
        - a 2-D object array of (dialogue_id, text);
        - a 1-D sequence of str, each a dialogue of its own;
        - numeric features: a 2-D array, or a DataFrame of numeric columns with or without
          ``dialogue_id`` and ``turn``.
    precomputed : bool, default=None
        Whether features (True) or text (False) are wanted; None takes what ``X`` is.
    estimator : estimator, default=None
        For features: whose ``n_features_in_`` is set or checked.
    reset : bool, default=True
        Whether to set (True) or to check (False) them.

    Returns
    -------
    Dialogues

    Raises
    ------
    ValueError
        If ``X`` has none of these forms, a text is empty or not a str, an id is missing, a
        (dialogue_id, turn) is there twice, or a feature is NaN or infinite.

    Examples
    --------
    >>> from sklearn_dialpref._dialogues.validation import check_dialogues
    >>> check_dialogues([["d1", "Hi!"], ["d2", "My parcel is late."], ["d1", "Hello."]]).group
    array([0, 1, 0])
    """
    native = nw.from_native(X, pass_through=True, allow_series=True)
    if isinstance(native, nw.LazyFrame):
        raise ValueError("X is a lazy frame; collect() it first")
    columns: dict[str, NDArray[Any]] = {}
    features: Any = None
    if isinstance(native, nw.DataFrame):
        names = [str(name) for name in native.columns]
        columns = {
            name: _series_array(native.get_column(native.columns[names.index(name)]))
            for name in RESERVED
            if name in names
        }
        others = native.drop([c for c in native.columns if str(c) in RESERVED])
        dtypes = others.schema.dtypes()
        numeric = dtypes and all(dtype.is_numeric() or dtype == nw.Boolean for dtype in dtypes)
        if dtypes and (precomputed or (numeric and precomputed is None and "text" not in columns)):
            features = others.to_native()
        elif precomputed:
            raise ValueError(f"X has only the columns {names} but {WANTS_FEATURES}")
        elif missing := {"dialogue_id", "text"} - columns.keys():
            raise ValueError(
                f"X lacks the column(s) {sorted(missing)}; it has {names[:20]}. "
                "Rename yours to 'dialogue_id' and 'text'"
            )
    elif isinstance(native, nw.Series):
        columns = {"text": _series_array(native)}
    else:
        columns, features = _from_arrays(X, precomputed)

    if features is not None:
        if precomputed is False:
            raise ValueError(
                f"X holds {type(X).__name__} features but the encoder wants text: pass {FORMS}, "
                "or use encoder='precomputed' for precomputed features"
            )
        features = _check_features(features, estimator, reset)
        n_rows = len(features)
        columns = {k: v for k, v in columns.items() if k in ("dialogue_id", "turn", "speaker")}
    else:
        if precomputed:
            raise ValueError(f"X holds text but {WANTS_FEATURES}")
        n_rows = len(columns["text"])
        _check_text(columns["text"], "text", allow_empty=False)
    if n_rows == 0:
        raise ValueError(NO_ROWS)
    return _dialogues(columns, features, n_rows)


def _from_arrays(X: Any, precomputed: bool | None) -> tuple[dict[str, NDArray[Any]], Any]:
    """Columns or features from an array or a sequence."""
    if isinstance(X, str | bytes | dict) or not hasattr(X, "__len__"):
        if hasattr(X, "shape") or precomputed:  # sparse, or nonsense: check_array says it best
            return {}, X
        raise ValueError(f"X is a {type(X).__name__}; pass {FORMS}")
    array = X if hasattr(X, "dtype") else label_array(X)
    if array.shape[:1] == (0,):
        raise ValueError(NO_ROWS)
    first = array.flat[0] if array.size and array.dtype.kind in "OUST" else None
    if array.dtype.kind not in "OUST" or (precomputed and not isinstance(first, str)):
        return {}, X
    if array.ndim == 1:
        return {"text": array.astype(object)}, None
    if array.ndim == 2 and array.shape[1] == 2:
        pairs = array.astype(object)
        return {"dialogue_id": pairs[:, 0], "text": pairs[:, 1]}, None
    raise ValueError(f"X is an array of shape {array.shape}; pass {FORMS}")


def _check_features(features: Any, estimator: Any, reset: bool) -> NDArray[Any]:
    from sklearn.utils import check_array
    from sklearn.utils.validation import validate_data

    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        if estimator is None:
            return check_array(features, dtype=np.float32, input_name="X")
        return validate_data(estimator, features, reset=reset, dtype=np.float32)


def _check_text(text: NDArray[Any], name: str, *, allow_empty: bool) -> None:
    for row, value in enumerate(text):
        if not isinstance(value, str):
            raise ValueError(
                f"{name} must be str, but row {row} holds {value!r} of type "
                f"{type(value).__name__}; convert it, or drop the row"
            )
        if not allow_empty and not value.strip():
            raise ValueError(
                f"{name} must not be empty, but row {row} holds {value!r}; drop the row, or "
                "write what was there (such as '[silence]')"
            )
    check_unicode(text, "X" if name == "text" else f"the column {name!r} of X")


def _dialogues(columns: dict[str, NDArray[Any]], features: Any, n_rows: int) -> Dialogues:
    ids = columns.get("dialogue_id")
    if ids is None:
        dialogue_id = np.arange(n_rows).astype(object)
        group = np.arange(n_rows)
    else:
        dialogue_id = ids.astype(object)
        if (missing := missing_in(ids)).any():
            raise ValueError(f"dialogue_id is missing in row {np.argmax(missing)}; give it one")
        group = codes_of(dialogue_id)
    context = columns.get("context")
    if context is not None:
        context = np.where(missing_in(context), "", context.astype(object))
        _check_text(context, "context", allow_empty=True)
    return Dialogues(
        dialogue_id=dialogue_id,
        group=group,
        turn=_turn_ranks(columns.get("turn"), group, dialogue_id),
        text=columns.get("text"),
        context=context,
        speaker=columns.get("speaker"),
        features=features,
        has_dialogues=ids is not None,
        has_turns="turn" in columns,
    )


def codes_of(values: NDArray[Any]) -> NDArray[np.int64]:
    """Codes of equal values, in sorted order; mixed types are sorted by type, then as text."""
    try:
        return np.unique(values, return_inverse=True)[1].astype(np.int64)
    except TypeError:
        keys = sorted(set(values), key=lambda v: (type(v).__name__, str(v)))
        code = {value: rank for rank, value in enumerate(keys)}
        return np.fromiter((code[v] for v in values), dtype=np.int64, count=len(values))


def _numbered(turn: NDArray[Any]) -> NDArray[Any]:
    """Turns as they are, but numbers where they hold text, which would sort "10" before "2"."""
    if not any(isinstance(value, str) for value in turn):
        return turn
    numbers = []
    for row, value in enumerate(turn):
        try:
            numbers.append(float(value))
            int(numbers[-1])  # neither "nan" nor "inf"
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"turn must be numbers or times, but row {row} holds {value!r} of type "
                f"{type(value).__name__}; number the utterances, or convert the column "
                "(such as with pd.to_datetime)"
            ) from None
    return np.array(numbers)


def _turn_ranks(
    turn: NDArray[Any] | None, group: NDArray[np.int64], dialogue_id: NDArray[Any]
) -> NDArray[np.int64]:
    if turn is None:
        keys: NDArray[Any] = np.zeros(len(group))
    else:
        if (missing := missing_in(turn)).any():
            raise ValueError(f"turn is missing in row {np.argmax(missing)}; number it")
        turn = _numbered(turn)
        keys = turn if turn.dtype.kind != "O" else codes_of(turn)
    order = np.lexsort((keys, group))
    same = group[order][1:] == group[order][:-1]
    if turn is not None and (twice := same & (keys[order][1:] == keys[order][:-1])).any():
        row = order[np.argmax(twice) + 1]
        raise ValueError(
            f"dialogue {dialogue_id[row]!r} has turn {turn.tolist()[row]!r} more than once "
            f"(row {row}); number the utterances of a dialogue"
        )
    first = np.flatnonzero(np.r_[True, ~same])
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(first, np.diff(np.r_[first, len(group)]))
    return rank


def dialogue_ids(X: Any) -> NDArray[Any] | None:
    """The dialogue of each row where ``X`` names it, whatever else it holds."""
    native = nw.from_native(X, pass_through=True, allow_series=True)
    if isinstance(native, nw.DataFrame):
        if "dialogue_id" not in native.columns:
            return None
        return _series_array(native.get_column("dialogue_id"))
    if isinstance(native, nw.Series):
        return None
    array = X if hasattr(X, "dtype") else label_array(X)
    pairs = array.ndim == 2 and array.shape[1] == 2 and array.dtype.kind in "OUST"
    return array[:, 0].astype(object) if pairs else None
