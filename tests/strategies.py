"""Generated inputs: values, containers and tables, right and wrong ones."""

from collections import deque
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st

NULLS = st.sampled_from([None, float("nan"), np.float32("nan"), pd.NA, pd.NaT])
Mood = Enum("Mood", {"NEG": "neg", "POS": "pos"}, type=str)

any_text = st.text(st.characters(exclude_categories=()), max_size=4)  # surrogates among them
clean_text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4).map("a".__add__)
small_ints = st.integers(-1, 3)
large_ints = st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63, 2**64, 2**80, 10**400])
fractions = st.floats(0, 1) | st.sampled_from([0.25, 0.5, 0.75, 1.5, -0.5])

# labels that come in one type, and anything that a list can hold
label_types = [
    st.sampled_from(["neg", "pos", "neu"]),
    st.sampled_from(["neg", "Neg", " neg", "", "nan", "None", "0", "1", "0.5"]),
    st.sampled_from([*Mood, "neg"]),
    any_text,
    small_ints,
    small_ints | large_ints,
    small_ints.map(float),
    small_ints | small_ints.map(float) | large_ints,
    st.booleans(),
    fractions,
]
oddities = st.one_of(
    any_text,
    st.binary(max_size=2),
    st.booleans(),
    small_ints,
    large_ints,
    st.floats(),
    st.complex_numbers(),
    st.decimals(allow_nan=False),
    st.sampled_from(
        [np.int8(1), np.float32(0.5), np.bool_(True), np.str_("neg"), np.array("neg")]
    ),
    st.sampled_from([np.datetime64("2024"), np.timedelta64(1, "s"), pd.Timestamp("2024")]),
    st.sampled_from([datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), Fraction(1, 3)]),
    st.sampled_from([(), ("a", "b"), [], ["a"], {}, {"a": "b"}, {"a"}, frozenset("a"), object()]),
    st.sampled_from([np.arange(2), pd.Series([1]), Mood.NEG, Decimal("NaN"), range(2), Mood]),
    NULLS,
)
one_type = st.sampled_from(label_types).flatmap(
    lambda values: st.lists(values | NULLS, min_size=1, max_size=6)
)
labels = one_type | st.lists(oddities, max_size=6)


def tables(values):
    """Lists of rows of one width."""
    return st.integers(1, 3).flatmap(
        lambda width: st.lists(st.lists(values, min_size=width, max_size=width), max_size=5)
    )


vote_tables = st.sampled_from(label_types).flatmap(lambda values: tables(values | NULLS))
score_tables = tables(fractions | st.sampled_from([0, 1, None, "0.5"])) | st.sampled_from(
    [[[0.25, 0.75], [1.0, 0.0], [None, None]], [[1 / 3, 1 / 3, 1 / 3]]]
)

# -- containers: those that keep a list's entries, and those that hold no rows ----------------

KEEP = {
    "list": list,
    "tuple": tuple,
    "deque": deque,
    "dict values": lambda values: dict(enumerate(values)).values(),
    "object array": lambda values: object_array(values),
    "object series": lambda values: pd.Series(values, dtype=object),
}
CONVERT = {
    "array": np.array,
    "masked": np.ma.array,
    "series": pd.Series,
    "index": pd.Index,
    "pandas array": pd.array,
    "categorical": lambda values: pd.Series(values, dtype="category"),
    "polars": lambda values: pl.Series(values, strict=False),
    "pyarrow": lambda values: arrow_array(values),
    "chunked": lambda values: pa.chunked_array([arrow_array(values)]),
    "frame": pd.DataFrame,
    "polars frame": lambda values: pl.DataFrame(values, orient="row", strict=False),
    "column": lambda values: object_array(values)[:, None],
}
REFUSE = {
    "dict": lambda values: {"a": values, "b": values},
    "generator": iter,
    "repr": repr,
    "bytes": lambda values: repr(values).encode(errors="replace"),
    "scalar": lambda values: values[0] if values else None,
    "lazy": lambda values: pl.LazyFrame({"a": [1]}),
    "0-d": lambda values: np.array("a"),
    "structured": lambda values: np.array([("a", 1)], dtype="U1,i8"),
    "record batch": lambda values: pa.record_batch({"a": [1], "text": ["a"]}),
    "nested": lambda values: [[[value]] for value in values],
}


def arrow_array(values):
    """As pyarrow has it, which crashes where a time of numpy stands beside its other scalars."""
    of_numpy = {isinstance(v, np.datetime64) for v in values if isinstance(v, np.generic)}
    if len(of_numpy) > 1:
        raise TypeError("pyarrow would crash")
    return pa.array(values)


def object_array(values):
    return np.fromiter(values, dtype=object, count=len(values))


@st.composite
def contained(draw, values):
    """A list, and the same in some container; the list is None where that changes the entries."""
    entries = draw(values)
    kinds = {**KEEP, **CONVERT, **REFUSE}
    kind = draw(st.sampled_from([*KEEP]) | st.sampled_from([*kinds]))
    try:
        container = kinds[kind](entries)
    except (
        Exception,
        pl.exceptions.PanicException,
    ):  # what another library cannot hold does not reach this one
        kind, container = "list", entries
    return (entries if kind in KEEP else None), container


# -- utterances -----------------------------------------------------------------------------

texts = st.lists(clean_text, min_size=1, max_size=6) | st.lists(any_text | oddities, max_size=6)
turn_types = [
    small_ints,
    st.integers(0, 99).map(str),
    large_ints | large_ints.map(str),
    st.sampled_from(["1", "2.5", " 3", "1e3", "x", "inf", "1_0"]),
    st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)),
    st.floats(),
    oddities,
]
numbers = st.floats(-1e6, 1e6) | st.floats() | small_ints


@st.composite
def dialogue_frames(draw):
    """DataFrames of text or of features, with any columns."""
    n = draw(st.integers(0, 6))

    def column(values):
        return draw(st.lists(values, min_size=n, max_size=n))

    columns = {
        "dialogue_id": column(draw(st.sampled_from([small_ints, st.just("d"), oddities]))),
        "text": column(draw(st.sampled_from([clean_text, clean_text, any_text | oddities]))),
        "turn": column(draw(st.sampled_from(turn_types))),
        "speaker": column(draw(st.sampled_from([st.sampled_from("ab"), oddities]))),
        "context": column(draw(st.sampled_from([clean_text | NULLS, oddities]))),
        "f": column(numbers),
    }
    names = draw(st.sets(st.sampled_from([*columns, "dialogue_id", "text"]), min_size=1))
    if draw(st.booleans()):
        names |= {"dialogue_id", "text"}
    chosen = {name: columns[name] for name in sorted(names)}
    form = draw(st.sampled_from(["objects", "pandas", "polars", "arrow", "array"]))
    try:
        if form == "pandas":
            return pd.DataFrame(chosen)
        if form == "polars":
            return pl.DataFrame(chosen, strict=False)
        if form == "arrow":
            return pa.table({name: arrow_array(values) for name, values in chosen.items()})
    except (
        Exception,
        pl.exceptions.PanicException,
    ):  # what another library cannot hold does not reach this one
        pass
    frame = pd.DataFrame({name: pd.Series(v, dtype=object) for name, v in chosen.items()})
    return frame.to_numpy() if form == "array" else frame


features = tables(numbers).map(np.array) | tables(numbers | oddities)
