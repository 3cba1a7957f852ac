"""Every form of dialogues and of missing labels, and what the errors say."""

from datetime import datetime
from enum import Enum
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from sklearn_dialpref._dialogues.validation import (
    check_dialogues,
    codes_of,
    is_missing,
    label_array,
)

NAN = float("nan")
FRAMES = [pd.DataFrame, pl.DataFrame]
TABLE = {
    "dialogue_id": ["b", "a", "b", "a"],
    "text": ["fine", "hello", "and you?", "hi"],
    "turn": [2, 1, 1, 0],
    "speaker": ["x", "y", "y", "x"],
    "context": ["and you?", "hi", None, None],
    "mood": [1.0, 2.0, 3.0, 4.0],
}


def table(*names, frame=pd.DataFrame, **changes):
    return frame({name: TABLE[name] for name in names} | changes)


def objects(*values):
    return pd.Series(values, dtype=object)


# -- dialogues ------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", FRAMES)
def test_frame_with_every_column(frame):
    dialogues = check_dialogues(frame(TABLE))
    assert dialogues.dialogue_id.tolist() == TABLE["dialogue_id"]
    assert dialogues.group.tolist() == [1, 0, 1, 0]
    assert dialogues.turn.tolist() == [1, 1, 0, 0]
    assert dialogues.text.tolist() == TABLE["text"]
    assert dialogues.speaker.tolist() == TABLE["speaker"]
    assert dialogues.context.tolist() == ["and you?", "hi", "", ""]
    assert dialogues.features is None
    assert dialogues.has_dialogues and dialogues.has_turns
    assert len(dialogues) == 4


@pytest.mark.parametrize(
    "X",
    [
        table("dialogue_id", "text"),
        table("text", "mood", "dialogue_id", frame=pl.DataFrame),
        table("dialogue_id", "text").set_index([[7, 7, 1, 1]]),
        table("dialogue_id", "text").to_numpy(),
        table("dialogue_id", "text").to_numpy(dtype=str),
        list(zip(TABLE["dialogue_id"], TABLE["text"], strict=True)),
        [[g, t] for g, t in zip(TABLE["dialogue_id"], TABLE["text"], strict=True)],
    ],
    ids=["pandas", "polars", "index", "object", "U", "tuples", "lists"],
)
def test_forms_with_dialogues(X):
    dialogues = check_dialogues(X)
    assert dialogues.group.tolist() == [1, 0, 1, 0]
    assert dialogues.turn.tolist() == [0, 0, 1, 1]  # row order
    assert dialogues.text.tolist() == TABLE["text"]
    assert dialogues.context is None and dialogues.speaker is None
    assert dialogues.has_dialogues and not dialogues.has_turns


@pytest.mark.parametrize(
    "X",
    [
        TABLE["text"],
        tuple(TABLE["text"]),
        np.array(TABLE["text"]),
        np.array(TABLE["text"], dtype=object),
        np.array(TABLE["text"], dtype=np.dtypes.StringDType()),
        pd.Series(TABLE["text"], index=[3, 3, 1, 0]),
        pd.Series(TABLE["text"], dtype="string"),
        pl.Series(TABLE["text"]),
        pd.Series(TABLE["text"]).values,
        pd.Series(TABLE["text"]).array,
        pd.array(TABLE["text"], dtype=pd.StringDtype("python")),
        pd.Series(TABLE["text"], dtype=pd.ArrowDtype(pa.string())),
        pd.Series(TABLE["text"], dtype=pd.ArrowDtype(pa.string())).array,
        pd.Index(TABLE["text"]),
        pd.Categorical(TABLE["text"]),
        pd.Series(TABLE["text"], dtype="category"),
        pl.Series(TABLE["text"], dtype=pl.Categorical),
        pa.array(TABLE["text"]),
        pa.array(TABLE["text"], pa.large_string()).dictionary_encode(),
        pa.chunked_array([TABLE["text"][:1], TABLE["text"][1:]]),
        np.ma.array(TABLE["text"]),
        dict(enumerate(TABLE["text"])).values(),
    ],
    ids=lambda X: f"{type(X).__module__.split('.')[0]}-{type(X).__name__}",
)
def test_texts_are_dialogues_of_their_own(X):
    dialogues = check_dialogues(X)
    assert dialogues.text.tolist() == TABLE["text"]
    assert dialogues.group.tolist() == [0, 1, 2, 3]
    assert dialogues.turn.tolist() == [0, 0, 0, 0]
    assert not dialogues.has_dialogues


FEATURES = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.parametrize(
    "X",
    [
        FEATURES,
        np.array(FEATURES),
        np.array(FEATURES, dtype=int),
        pd.DataFrame(FEATURES),
        pd.DataFrame(FEATURES, columns=["f", "g"]),
        pl.DataFrame(FEATURES, schema=["f", "g"], orient="row"),
    ],
    ids=["list", "float", "int", "int names", "pandas", "polars"],
)
@pytest.mark.parametrize("precomputed", [None, True])
def test_features(X, precomputed):
    dialogues = check_dialogues(X, precomputed=precomputed)
    assert_array_equal(dialogues.features, FEATURES)
    assert dialogues.text is None and not dialogues.has_dialogues


@pytest.mark.parametrize("frame", FRAMES)
def test_features_with_dialogues(frame):
    dialogues = check_dialogues(table("mood", "dialogue_id", "turn", frame=frame))
    assert_array_equal(dialogues.features, [[1], [2], [3], [4]])
    assert dialogues.group.tolist() == [1, 0, 1, 0]
    assert dialogues.turn.tolist() == [1, 1, 0, 0]


def test_ids_of_mixed_types():
    dialogues = check_dialogues(table("text", dialogue_id=[1, "a", 1, 2.0]))
    assert len(set(dialogues.group.tolist())) == 3
    assert codes_of(np.array(["b", 1, "b"], dtype=object)).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "turn",
    [
        ["10", "9", "2", "1"],
        [10, "9", "2", 1],
        ["2.5", "2", "1", "-1"],
        [4, 3, 2, 1],
        pd.date_range("2024", periods=4)[::-1],
        objects(*pd.date_range("2024", periods=4, tz="UTC")[::-1]),
        [str(2**60 + 3), str(2**60 + 2), str(2**60 + 1), str(2**60)],
        objects(2**80 + 3, 2**80 + 2, 2**80 + 1, 2**80),
        [" 1e3", "1_0", "9.5", "-1"],
        objects(3, np.float32(2.5), "2", Fraction(1, 3)),
    ],
)
def test_turns_of_any_sortable_type(turn):
    assert check_dialogues(table("dialogue_id", "text", turn=turn)).turn.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (pd.DataFrame({"id": ["a"], "utterance": ["b"]}), r"lacks.*'dialogue_id', 'text'.*'id'"),
        (table("dialogue_id", speaker=["hi"] * 4).assign(t="x"), r"lacks the column.*'text'"),
        (table("text"), r"lacks the column.*'dialogue_id'"),
        (table("dialogue_id", text=["a", "b", " ", "c"]), "must not be empty, but row 2"),
        (["a", ""], "must not be empty, but row 1"),
        (table("dialogue_id", text=["a", "b", None, "c"]), "must be str, but row 2"),
        (table("dialogue_id", frame=pl.DataFrame, text=["a", None, "b", "c"]), "row 1 holds None"),
        (["a", 1], "must be str, but row 1 holds 1 of type int"),
        (["a", "b \ud83d"], r"row 1 of X has a lone surrogate \('\\ud83d'\), which cannot be enc"),
        (table("dialogue_id", text=objects("a", "\ude00", "b", "c")), "row 1 of X has a lone"),
        (
            table("dialogue_id", "text", context=objects("a", "b", None, "\ud83d")),
            "row 3 of the column 'context' of X has a lone surrogate",
        ),
        (table("dialogue_id", text=[1, 2, 3, 4]), "must be str, but row 0"),
        (table("text", dialogue_id=["a", None, "b", "b"]), "dialogue_id is missing in row 1"),
        (table("dialogue_id", "text", turn=[1, NAN, 2, 3]), "turn is missing in row 1"),
        (table("dialogue_id", "text", turn=[1, 2, 1, 3]), "'b' has turn 1 more than once"),
        (table("dialogue_id", "text", turn=["1", "inf", "2", "3"]), "but row 1 holds 'inf'"),
        (table("dialogue_id", "text", turn=[1, 2, np.inf, 3]), "numbers or times, but row 2"),
        (table("dialogue_id", "text", turn=[True, False] * 2), "numbers or times, but row 0"),
        (table("dialogue_id", "text", turn=objects(1, 2, [3], 4)), "row 2 holds .3. of type list"),
        (
            table("dialogue_id", "text", turn=objects(1, 2, pd.Timestamp("2024"), 4)),
            "turn mixes types: row 0 holds 1 but row 2 holds Timestamp",
        ),
        (table("dialogue_id", "text", turn=["1.0", "2", "1", "3"]), "'b' has turn '1' more than"),
        (table("dialogue_id", "text", turn=list("dcba")), "numbers or times, but row 0 holds 'd'"),
        (table("dialogue_id", "text", turn=["1", "nan", "2", "3"]), "but row 1 holds 'nan'"),
        (table("dialogue_id", "text", turn=["1", "x", 2, None]), "turn is missing in row 3"),
        (table("dialogue_id", "text", context=[1, "a", "b", "c"]), "context must be str.*row 0"),
        (
            table("dialogue_id", "text", context=[1.5, NAN, 2, 3]),
            "context must be str.*row 0.*1.5",
        ),
        (table("dialogue_id"), r"lacks the column.*'text'"),
        ([], "0 sample"),
        (np.array([["a", "b", "c"]]), r"shape \(1, 3\); pass a DataFrame"),
        ("hello", "X is a str; pass"),
        (b"hello", "X is a bytes; pass.*put it into a list"),
        (bytearray(b"hello"), "X is a bytearray; pass"),
        ({"a", "b"}, "X is a set; pass.*no order; pass a list"),
        ({"dialogue_id": [1, 2], "text": ["a", "b"]}, "X is a dict; pass.*dict of columns"),
        ((text for text in "ab"), "X is a generator; pass"),
        (None, "X is a NoneType; pass"),
        (np.array("a"), "X is a ndarray; pass"),
        (np.array([("a", "b")], dtype="U1,U1"), "structured array; pass pd.DataFrame"),
        (pa.record_batch({"text": ["a"], "dialogue_id": ["b"]}), "pass pa.Table.from_batches"),
        ([{"dialogue_id": 1, "text": "a"}], "text must be str, but row 0 holds .*of type dict"),
        ([b"a", b"b"], "text must be str, but row 0 holds b'a' of type bytes"),
        (np.ma.array(["a", "b"], mask=[0, 1]), "text must be str, but row 1 holds None"),
        (
            table("text", dialogue_id=objects("a", {}, [1], "b")),
            "dialogue_id.*row 1 holds .*dict",
        ),
        (
            table("dialogue_id", "text", speaker=objects("a", [1], None, "b")),
            "speaker must be strings or numbers, but row 1 holds .1. of type list",
        ),
        (
            table("text", dialogue_id=objects("a", "b", "\ud83d", "b")),
            "row 2 of the column 'dia",
        ),
        (
            table("text", dialogue_id=[1.0, 2.0**53, 2.0, 2.0]),
            "dialogue_id holds the float 9007199254740992.0 in row 1.*read the column as text",
        ),
        (np.array([["2024"]], dtype="M8[D]"), "features must be numbers, but X holds times"),
        (np.ma.array([[1.0, 2.0]], mask=[[0, 1]]), "NaN"),
        (table("dialogue_id", "text").iloc[:0], "0 sample"),
        (
            pl.DataFrame(TABLE).lazy(),
            r"LazyFrame of polars.*collect\(\) it first.*distributed.predict_polars",
        ),
        ([[1.0, NAN]], "NaN"),
        ([[1e39, 1.0]], "infinity or a value too large for dtype..float32"),
        (pd.DataFrame({"f": [1.0, -1e39]}), "infinity or a value too large for dtype..float32"),
        (pd.DataFrame({"f": [1.0, np.inf]}), "infinity"),
    ],
)
def test_errors_of_dialogues(X, message):
    with pytest.raises(ValueError, match=message):
        check_dialogues(X)


@pytest.mark.parametrize(
    ("X", "precomputed", "message"),
    [
        (np.ones((2, 3)), False, "encoder wants text.*encoder='precomputed'"),
        (["a", "b"], True, "wants features"),
        (table("dialogue_id", "text", "turn"), True, "only the columns .*'text'.*wants features"),
        (table("dialogue_id"), True, "only the columns .*'dialogue_id'.*wants features"),
        (table("dialogue_id"), False, "lacks the column"),
        ([], False, "0 sample"),
        ([], True, "0 sample"),
        (pd.DataFrame({"f": [1.0]}), False, "lacks the column"),
        (pl.Series(["a"]), True, "wants features"),
        (pl.DataFrame({"f": [2**64]}), True, "columns .'f'. of X have 128 bits; cast them"),
        ([[1.0], [10**400]], True, "one is too large for a float"),
        (pd.DataFrame({"f": [10**400, 1]}, dtype=object), True, "one is too large for a float"),
        (np.array([[Fraction(10**400)]], dtype=object), True, "one is too large for a float"),
        (pl.DataFrame({"f": [1.0], "at": [datetime(2024, 1, 1)]}), True, "times in the .*'at'"),
    ],
)
def test_text_and_features_are_not_confused(X, precomputed, message):
    with pytest.raises(ValueError, match=message):
        check_dialogues(X, precomputed=precomputed)


class Mood(str, Enum):  # noqa: UP042 StrEnum would not show the fault
    BAD = "bad"
    GOOD = "good"


@pytest.mark.parametrize("form", [list, lambda y: objects(*y), lambda y: np.array(y, object)])
def test_members_of_a_str_enum_are_the_texts_that_they_equal(form):
    texts = check_dialogues(form([*Mood])).text.tolist()
    assert texts == ["bad", "good"] and {type(text) for text in texts} == {str}
    labels = label_array(form([*Mood])).tolist()
    assert labels == ["bad", "good"] and {type(label) for label in labels} == {str}


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ("ab", "labels must be a sequence.*'ab' of type str; put it into a list"),
        (b"ab", "labels must be a sequence.*of type bytes; put it into a list"),
        (Mood.BAD, "labels must be a sequence.*of type Mood; put it into a list"),
        ({"a": [1], "b": [2]}, "of type dict; pass its values as a list, or pd.DataFrame"),
        ({"a", "b"}, "of type set; a set has no order; pass a list"),
        (frozenset("ab"), "of type frozenset; a set has no order"),
        ((label for label in "ab"), "must be a sequence.*<generator.*pass a list"),
        (np.float64(3), "must be a sequence.*pass a list"),
        (np.array([(1, 2)], dtype="i8,i8"), "structured array"),
        ([[["a"]], [["b"]]], "1-D or 2-D, but its rows hold lists"),
    ],
)
def test_containers_that_hold_no_labels(y, message):
    with pytest.raises(ValueError, match=message):
        label_array(y)


def test_columns_of_lists_stay_lists():
    assert label_array(pd.Series([["a", "b"], ["c", "d"]])).tolist() == [["a", "b"], ["c", "d"]]


def test_whole_numbers_keep_their_digits():
    large = 2**53 + 1
    assert label_array([large, NAN]).tolist()[0] == large
    assert label_array([2**63, -1]).tolist() == [2**63, -1]
    assert label_array([large, 2.0]).tolist() == [large, 2.0]
    assert label_array(pl.Series([2**64, 1])).tolist() == [2**64, 1]


# -- missing labels -------------------------------------------------------------------------


@pytest.mark.parametrize("null", [None, NAN, np.nan, np.float32("nan"), pd.NA, pd.NaT])
def test_nulls(null):
    assert is_missing(["a", null, "b"]).tolist() == [False, True, False]
    assert is_missing(np.array([1, null], dtype=object)).tolist() == [False, True]
    assert is_missing(pd.Series(["a", null], dtype=object)).tolist() == [False, True]


@pytest.mark.parametrize(
    "y",
    [
        [1, None],
        np.array([1.0, NAN]),
        np.array(["2024", "NaT"], dtype="M8[D]"),
        np.array(["a", None], dtype=np.dtypes.StringDType(na_object=None)),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series(["a", None], dtype="category"),
        pd.Series(["a", None], dtype="string"),
        pl.Series([1, None]),
        pl.Series([1.0, NAN]),
        pl.Series(["a", None], dtype=pl.Categorical),
    ],
    ids=lambda y: f"{type(y).__module__.split('.')[0]}-{getattr(y, 'dtype', 'list')}",
)
def test_missing_by_form(y):
    assert is_missing(y).tolist() == [False, True]


def test_strings_that_look_missing_are_labels():
    assert not is_missing(["nan", "", "None", 0, False, -1]).any()


def test_missing_values_leave_ints_ints():
    assert label_array([1, None]).tolist() == [1, None]
    assert label_array(pl.Series([1, None])).tolist() == [1, None]
    assert label_array(pd.DataFrame({"a": ["x", None]})).shape == (2, 1)
