"""Input validation for X: the forms of dialogues, and what counts as missing."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from reprlib import repr as short_repr
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from .columns import Dialogues
from .containers import EXACT, NOT_OF_NUMPY, label_array, missing_in, series_array
from .ordering import codes_of, turn_ranks, whole_numbers
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
# by package: its tables that are not in memory, how to get them there, and what predicts them
LAZY_TABLES = {
    "dask": ("DataFrame", "compute()", "predict_dask"),
    "polars": ("LazyFrame", "collect()", "predict_polars"),
    "pyspark": ("DataFrame", "toPandas()", "predict_spark"),
    "ray": ("Dataset", "to_pandas()", "predict_ray"),
}
NO_ROWS = "Found array with 0 sample(s) while a minimum of 1 is required in X."


# -- labels -------------------------------------------------------------------------------


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


def indicator_table(labels: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Multilabel labels as 1, 0 and NaN for missing."""
    missing = missing_in(labels)
    try:
        table = np.where(missing, np.nan, labels).astype(np.float64)
    except (TypeError, ValueError, OverflowError):
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
    _refuse_lazy_table(X)
    native = nw.from_native(X, pass_through=True, allow_series=True)
    if isinstance(native, nw.LazyFrame):
        raise ValueError("X is a lazy frame; collect() it first")
    columns: dict[str, NDArray[Any]] = {}
    features: Any = None
    if isinstance(native, nw.DataFrame):
        names = [str(name) for name in native.columns]
        columns = {
            name: series_array(native.get_column(native.columns[names.index(name)]))
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
        columns = {"text": series_array(native)}
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


def _refuse_lazy_table(X: Any) -> None:
    """Refuse a table of an engine, with the ways to use it; narwhals does not know all of them."""
    package, name = type(X).__module__.partition(".")[0], type(X).__name__
    table, into_memory, function = LAZY_TABLES.get(package, ("", "", ""))
    if table and name.endswith(table):
        raise ValueError(
            f"X is a {name} of {package}, which is not in memory: {into_memory} it first; to "
            f"predict it where it is, see sklearn_dialpref.distributed.{function}"
        )


def check_whole_dialogues(X: Any, precomputed: bool | None = None) -> Dialogues:
    """As :func:`check_dialogues`, for states, which go through dialogues.

    Missing speakers are None.

    Parameters
    ----------
    X : DataFrame
    precomputed : bool, default=None

    Returns
    -------
    Dialogues

    Raises
    ------
    ValueError
        If X names no dialogues, or is not as described.
    """
    dialogues = check_dialogues(X, precomputed=precomputed)
    if not dialogues.has_dialogues:
        raise ValueError(
            "states go through dialogues, but X names none: pass a DataFrame with 'dialogue_id'"
        )
    if dialogues.speaker is None:
        return dialogues
    speaker = dialogues.speaker.astype(object)
    speaker[missing_in(speaker)] = None  # a NaN is not found in a set that holds another NaN
    return replace(dialogues, speaker=speaker)


def _from_arrays(X: Any, precomputed: bool | None) -> tuple[dict[str, NDArray[Any]], Any]:
    """Columns or features from an array or a sequence."""
    if hasattr(X, "toarray") or (precomputed and not isinstance(X, Iterable)):
        return {}, X  # sparse, or nonsense: check_array says it best
    if isinstance(X, np.ma.MaskedArray) and X.dtype.kind in "biuf":
        X = np.where(np.ma.getmaskarray(X), np.nan, X.data)
    array = _array_of(X)
    if array.shape[:1] == (0,):
        raise ValueError(NO_ROWS)
    first = array.flat[0] if array.size and array.dtype.kind in "OUS" else None
    if array.dtype.kind not in "OUS" or (precomputed and not isinstance(first, str)):
        return {}, X
    if array.ndim == 1:
        return {"text": array.astype(object)}, None
    if array.ndim == 2 and array.shape[1] == 2:
        pairs = array.astype(object)
        return {"dialogue_id": pairs[:, 0], "text": pairs[:, 1]}, None
    raise ValueError(f"X is an array of shape {array.shape}; pass {FORMS}")


def _array_of(X: Any) -> NDArray[Any]:
    try:
        return label_array(X, "X")
    except ValueError as error:
        raise ValueError(f"X is a {type(X).__name__}; pass {FORMS}; {error}") from None


def _check_features(features: Any, estimator: Any, reset: bool) -> NDArray[Any]:
    from sklearn.utils import check_array
    from sklearn.utils.validation import validate_data

    frame = nw.from_native(features, pass_through=True)
    dtypes = frame.schema if isinstance(frame, nw.DataFrame) else {}
    times = [name for name, dtype in dtypes.items() if dtype.is_temporal()]
    wide = [name for name, dtype in dtypes.items() if dtype in NOT_OF_NUMPY]
    if wide:
        raise ValueError(f"the columns {wide} of X have 128 bits; cast them to floats")
    if times or getattr(getattr(features, "dtype", None), "kind", "f") in "mM":
        where = f" in the columns {times}" if times else ""
        raise ValueError(
            f"features must be numbers, but X holds times{where}; convert them, or drop them"
        )
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: refused
            if estimator is None:
                return check_array(features, dtype=np.float32, input_name="X")
            return validate_data(estimator, features, reset=reset, dtype=np.float32)
    except OverflowError as error:
        raise ValueError(
            "features must be numbers that float32 can hold, but in X one is too large for a "
            f"float ({error}); scale or drop it"
        ) from error


def _check_text(text: NDArray[Any], name: str, *, allow_empty: bool) -> None:
    for row, value in enumerate(text):
        if not isinstance(value, str):
            raise ValueError(
                f"{name} must be str, but row {row} holds {short_repr(value)} of type "
                f"{type(value).__name__}; convert it, or drop the row"
            )
        if not allow_empty and not value.strip():
            raise ValueError(
                f"{name} must not be empty, but row {row} holds {value!r}; drop the row, or "
                "write what was there (such as '[silence]')"
            )
    check_unicode(text, "X" if name == "text" else f"the column {name!r} of X")


def hashable(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Names of dialogues, speakers or groups: of any type whose values can be told apart."""
    for row, value in enumerate(values if values.dtype.kind == "O" else ()):
        try:
            hash(value)
        except TypeError:
            raise ValueError(
                f"{name} must be strings or numbers, but row {row} holds {short_repr(value)} of "
                f"type {type(value).__name__}; convert the column"
            ) from None
    return values


def _check_names(values: NDArray[Any], name: str) -> None:
    names = hashable(values, name)
    check_unicode(names if names.dtype.kind in "OU" else (), f"the column {name!r} of X")


def _check_ids(ids: NDArray[Any]) -> None:
    if (missing := missing_in(ids)).any():
        raise ValueError(f"dialogue_id is missing in row {np.argmax(missing)}; give it one")
    rounded = np.abs(ids) >= EXACT if ids.dtype.kind == "f" else np.zeros(len(ids), dtype=bool)
    if rounded.any():
        raise ValueError(
            f"dialogue_id holds the float {ids[rounded][0]} in row {np.argmax(rounded)}: from "
            "2**53 on floats round whole numbers, so that dialogues can become one; read the "
            "column as text"
        )
    _check_names(ids, "dialogue_id")


def _dialogues(columns: dict[str, NDArray[Any]], features: Any, n_rows: int) -> Dialogues:
    ids = columns.get("dialogue_id")
    if ids is None:
        dialogue_id = np.arange(n_rows).astype(object)
        group = np.arange(n_rows)
    else:
        dialogue_id = ids.astype(object)
        _check_ids(ids)
        group = codes_of(dialogue_id)
    if (speaker := columns.get("speaker")) is not None:
        _check_names(speaker, "speaker")
    context = columns.get("context")
    if context is not None:
        context = np.where(missing_in(context), "", context.astype(object))
        _check_text(context, "context", allow_empty=True)
    return Dialogues(
        dialogue_id=dialogue_id,
        group=group,
        turn=turn_ranks(columns.get("turn"), group, dialogue_id),
        turn_number=whole_numbers(columns.get("turn")),
        text=columns.get("text"),
        context=context,
        speaker=speaker,
        features=features,
        has_dialogues=ids is not None,
        has_turns="turn" in columns,
    )


def warn_of_other_order(X: Any, **labels: Any) -> None:
    """Warn where labels have the index of ``X`` in another order: rows are matched by position.

    Parameters
    ----------
    X : DataFrame or Series of pandas, or anything else
    **labels : array-like
        Labels by the names of the arguments that they came as.
    """
    index = _index(X)
    for name, values in labels.items():
        other = _index(values)
        if index is None or other is None or len(other) != len(index) or index.equals(other):
            continue
        if index.is_unique and other.is_unique and other.isin(index).all():
            warnings.warn(
                f"the index of {name} is that of X in another order, but rows are matched by "
                f"position: pass {name}.loc[X.index] to match them by the index, or "
                f"{name}.to_numpy() if they are in the order of X already",
                UserWarning,
                stacklevel=3,
            )


def _index(values: Any) -> Any:
    return values.index if hasattr(values, "iloc") else None


def dialogue_ids(X: Any) -> NDArray[Any] | None:
    """The dialogue of each row where ``X`` names it, whatever else it holds."""
    native = nw.from_native(X, pass_through=True, allow_series=True)
    if isinstance(native, nw.DataFrame):
        if "dialogue_id" not in native.columns:
            return None
        return series_array(native.get_column("dialogue_id"))
    if isinstance(native, nw.Series):
        return None
    array = X if hasattr(X, "toarray") else label_array(X, "X")
    pairs = array.ndim == 2 and array.shape[1] == 2 and array.dtype.kind in "OUST"
    return array[:, 0].astype(object) if pairs else None
