"""Every form of labels, votes and scores, and what the errors say."""

import warnings
from enum import Enum

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_dialpref._dialogues.validation import check_dialogues, is_missing
from sklearn_dialpref._labels.scores import vote_shares
from sklearn_dialpref._labels.targets import canonical_order, check_targets

NAN = float("nan")
FRAMES = [pd.DataFrame, pl.DataFrame]


# -- human labels ---------------------------------------------------------------------------


@pytest.mark.parametrize("null", [None, NAN, pd.NA])
@pytest.mark.parametrize("labels", [["n", "p"], [3, 7], [False, True], [1.0, 2.0]], ids=str)
@pytest.mark.parametrize(
    "form",
    [
        list,
        tuple,
        lambda y: np.array(y, dtype=object),
        lambda y: pd.Series(y, index=[5, 5, 5], dtype=object),
        lambda y: pl.Series([None if is_missing([v]).any() else v for v in y], strict=True),
    ],
    ids=["list", "tuple", "object", "pandas", "polars"],
)
def test_human_labels(form, labels, null):
    targets = check_targets(form([labels[1], null, labels[0]]), None, 3)
    assert targets.classes.tolist() == labels
    assert targets.human.tolist() == [1, -1, 0]
    assert targets.has_human.tolist() == [True, False, True]
    assert not targets.multilabel and targets.scores is None
    assert not targets.has_score.any()


@pytest.mark.parametrize(
    "y",
    [
        np.array(["n", "p", "n"]),
        np.array([0, 1, 0]),
        np.array([False, True, False]),
        np.array([0.0, 1.0, 0.0]),
        pd.Series([0, 1, 0], dtype="Int64"),
        pd.Series(["n", "p", "n"], dtype="category"),
        pl.Series(["n", "p", "n"], dtype=pl.Enum(["p", "n"])),
    ],
)
def test_complete_human_labels(y):
    targets = check_targets(y, None, 3)
    assert targets.human.tolist() == [0, 1, 0]
    assert targets.classes.tolist() == sorted(set(y.tolist() if hasattr(y, "tolist") else list(y)))


def test_minus_one_is_a_class():
    assert check_targets([-1, 1, None], None, 3).classes.tolist() == [-1, 1]


def test_classes_may_name_unseen_ones():
    targets = check_targets(["b", None], None, 2, classes=["c", "a", "b"])
    assert targets.classes.tolist() == ["a", "b", "c"]
    assert targets.human.tolist() == [1, -1]


class Mood(str, Enum):  # noqa: UP042 StrEnum would not show the fault
    NEG = "neg"
    POS = "pos"


@pytest.mark.parametrize("form", [list, lambda y: np.array(y, dtype=object), pd.Series])
def test_members_of_a_str_enum(form):
    human, votes = form([Mood.POS, None]), [[Mood.POS, Mood.NEG], [Mood.NEG, None]]
    targets = check_targets(human, votes, 2)
    assert targets.classes.tolist() == ["neg", "pos"]
    assert targets.human.tolist() == [1, -1]
    assert_allclose(targets.scores, [[0.5, 0.5], [1, 0]])
    frame = pd.DataFrame([[0.2, 0.8]] * 2, columns=pd.Index([*Mood], dtype=object))
    assert check_targets(human, frame, 2, classes=[*Mood]).classes.tolist() == ["neg", "pos"]


def test_large_whole_numbers_stay_apart():
    classes = [2**53, 2**53 + 1]
    for y in ([*classes, NAN], pd.Series([*classes, None], dtype="Int64"), [*classes, None]):
        targets = check_targets(y, None, 3)
        assert targets.classes.tolist() == classes and targets.human.tolist() == [0, 1, -1]
    scores = pl.DataFrame({str(classes[1]): [0.1, 0.2], str(classes[0]): [0.9, 0.8]})
    assert_allclose(check_targets(classes, scores, 2).scores, [[0.9, 0.1], [0.8, 0.2]])


def test_column_vector_warns():
    with pytest.warns(UserWarning, match="column-vector"):
        assert check_targets([["a"], ["b"]], None, 2).human.tolist() == [0, 1]


MASKED = np.ma.array([1, 2, 99], mask=[0, 0, 1])


@pytest.mark.parametrize(
    "y",
    [MASKED, pd.array([1, 2, None], "Int64"), pa.array([1, 2, None]), pd.Series(MASKED)],
    ids=["masked", "pandas", "pyarrow", "series"],
)
def test_arrays_with_nulls_keep_their_ints(y):
    targets = check_targets(y, None, 3)
    assert targets.classes.tolist() == [1, 2]
    assert targets.human.tolist() == [0, 1, -1]
    if not isinstance(y, pd.Series):  # pandas itself turns masked ints to floats
        assert targets.classes.dtype.kind == "i"


# -- labels and votes of the LLM ------------------------------------------------------------


@pytest.mark.parametrize(
    "y_llm",
    [
        [["a", "b"], ["b", "b"], [None, None], ["a", None]],
        np.array([["a", "b"], ["b", "b"], [None, NAN], ["a", pd.NA]], dtype=object),
        pd.DataFrame({"p": ["a", "b", None, "a"], "q": ["b", "b", pd.NA, None]}),
        pl.DataFrame({"p": ["a", "b", None, "a"], "q": ["b", "b", None, None]}),
    ],
    ids=["list", "object", "pandas", "polars"],
)
def test_votes(y_llm):
    targets = check_targets(["b", None, None, None], y_llm, 4)
    assert_allclose(targets.scores, [[0.5, 0.5], [0, 1], [NAN, NAN], [1, 0]])
    assert targets.has_score.tolist() == [True, True, False, True]


@pytest.mark.parametrize("labels", [["a", "b"], [0, 1], [False, True]], ids=str)
@pytest.mark.parametrize("form", [list, pd.Series, lambda y: pl.Series(y), np.array])
def test_llm_labels_alone(form, labels):
    y_llm = form([labels[1], labels[0], labels[1]])
    targets = check_targets(None, y_llm, 3)
    assert targets.classes.tolist() == labels
    assert targets.human.tolist() == [-1, -1, -1]
    assert_allclose(targets.scores, [[0, 1], [1, 0], [0, 1]])


def test_classes_come_from_human_and_llm():
    assert check_targets(["b", None], ["a", "c"], 2).classes.tolist() == ["a", "b", "c"]


def test_vote_shares():
    shares = vote_shares(np.array([[1, 2, 2], [1, 1, 1]]), np.array([1, 2, 3]))
    assert_allclose(shares, [[1 / 3, 2 / 3, 0], [1, 0, 0]])


# -- scores ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "y_llm",
    [
        [[0.2, 0.8], [None, None], [1, 0]],
        [[0.2, 0.8], None, (1, 0)],
        [np.array([0.2, 0.8]), NAN, [1, 0]],
        np.ma.array([[0.2, 0.8], [7, 7], [1, 0]], mask=[[0, 0], [1, 1], [0, 0]]),
        np.array([[0.2, 0.8], [NAN, NAN], [1, 0]], dtype=np.float32),
        np.array([[0.2, 0.8], [None, None], [1, 0]], dtype=object),
        pd.DataFrame({"p": [0.8, NAN, 0], "n": [0.2, NAN, 1]}),
        pd.DataFrame({"p": [0.8, None, 0], "n": [0.2, None, 1]}, dtype="Float64"),
        pl.DataFrame({"p": [0.8, None, 0.0], "n": [0.2, NAN, 1.0]}),
    ],
    ids=["list", "None", "NaN", "masked", "float32", "object", "pandas", "Float64", "polars"],
)
def test_scores(y_llm):
    targets = check_targets(["n", "p", None], y_llm, 3)
    assert_allclose(targets.scores, [[0.2, 0.8], [NAN, NAN], [1, 0]], rtol=1e-6)
    assert targets.scores.dtype == np.float32


@pytest.mark.parametrize("frame", FRAMES)
def test_score_columns_of_ints_beside_floats(frame):
    y_llm = frame({"n": [1, 0], "p": [0.0, 1.0]})
    assert check_targets(["n", "p"], y_llm, 2).scores.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("y_human", "y_llm"),
    [
        ([1, None, 2], pd.DataFrame({2: [0.1] * 3, 1: [0.9] * 3})),
        ([1, None, 2], pl.DataFrame({"2": [0.1] * 3, "1": [0.9] * 3})),
        (np.array([1, NAN, 2]), pd.DataFrame({2: [0.1] * 3, 1: [0.9] * 3})),
        (np.array([1, NAN, 2]), pl.DataFrame({"2": [0.1] * 3, "1": [0.9] * 3})),
        ([False, None, True], pl.DataFrame({"True": [0.1] * 3, "False": [0.9] * 3})),
        (["a", None, "b"], pl.DataFrame({"b": [0.1] * 3, "a": [0.9] * 3})),
        (None, pl.DataFrame({"b": [0.1] * 3, "a": [0.9] * 3})),
    ],
)
def test_score_frames_are_aligned_by_name(y_human, y_llm):
    targets = check_targets(y_human, y_llm, 3)
    assert_allclose(targets.scores, [[0.9, 0.1]] * 3)
    assert len(targets.classes) == 2


def test_scores_need_not_sum_to_one_exactly():
    targets = check_targets(["a", "b"], [[0.3333, 0.6662], [0.5, 0.5]], 2)
    assert_allclose(targets.scores.sum(axis=1), 1, rtol=1e-6)


# -- multilabel -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y_human", "names"),
    [
        ([[1, 0], [None, 1]], [0, 1]),
        (np.array([[1, 0], [NAN, 1]]), [0, 1]),
        (np.array([[True, False], [pd.NA, True]], dtype=object), [0, 1]),
        (pd.DataFrame([[1, 0], [NAN, 1]]), [0, 1]),
        (pd.DataFrame([[1, 0], [NAN, 1]], columns=[7, 5]), [7, 5]),
        (pd.DataFrame({"x": [1, None], "w": [0, 1]}, dtype="Int64"), ["x", "w"]),
        (pl.DataFrame({"x": [True, None], "w": [False, True]}), ["x", "w"]),
    ],
)
def test_multilabel(y_human, names):
    y_llm = np.array([[0.9, 0.8], [NAN, 0.1]])
    targets = check_targets(y_human, y_llm, 2)
    assert targets.multilabel
    assert targets.classes.tolist() == names
    assert_array_equal(targets.human, [[1, 0], [NAN, 1]])
    assert_allclose(targets.scores, y_llm, rtol=1e-6)
    assert targets.has_human.all() and targets.has_score.all()


@pytest.mark.parametrize("names", [["x", "w"], [7, 5]])
def test_multilabel_scores_are_aligned_by_name(names):
    y_human = pd.DataFrame([[1, 0], [0, 1]], columns=names)
    y_llm = pd.DataFrame([[0.1, 0.9], [0.2, 0.3]], columns=names[::-1])
    assert_allclose(check_targets(y_human, y_llm, 2).scores, [[0.9, 0.1], [0.3, 0.2]])


@pytest.mark.parametrize("frame", FRAMES)
def test_multilabel_columns_follow_classes_by_name(frame):
    y_human = frame({"b": [1, 0, 1], "a": [0, 1, 0]})
    y_llm = frame({"b": [0.9, 0.2, 0.7], "a": [0.1, 0.8, 0.3]})
    targets = check_targets(y_human, y_llm, 3, classes=["a", "b"])
    assert targets.classes.tolist() == ["a", "b"]
    assert targets.human.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert_allclose(targets.scores, [[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"y_human stand in another order than classes=\['a'"):
        check_targets(y_human, y_llm.to_numpy(), 3, classes=["a", "b"])
    unnamed = check_targets(y_human, y_llm.to_numpy(), 3, classes=["b", "a"])
    assert_allclose(unnamed.scores, y_llm.to_numpy(), rtol=1e-6)
    with pytest.raises(ValueError, match=r"y_human has the columns \['b', 'a'\].*'x'.*name"):
        check_targets(y_human, None, 3, classes=["a", "x"])


def test_multilabel_names_from_classes():
    targets = check_targets([[1, 0], [None, None]], None, 2, classes=["x", "w"])
    assert targets.classes.tolist() == ["x", "w"]
    assert targets.has_human.tolist() == [True, False]


# -- what the errors of targets say ---------------------------------------------------------


@pytest.mark.parametrize(
    ("y_human", "y_llm", "classes", "message"),
    [
        (None, None, None, "no row has a label"),
        ([None, NAN], None, None, "no row has a label.*all missing"),
        ([None, NAN], [None, None], ["a", "b"], "no row has a label"),
        (None, np.full((2, 2), NAN), ["a", "b"], "no row has a label"),
        ([[NAN, NAN], [None, None]], None, None, "no row has a label"),
        (["a", None], None, None, "only one class is present: .'a'.*classes="),
        (["a", "b", "a"], None, None, "X has 2 rows but y_human has 3"),
        (["a", "b"], ["a"], None, "X has 2 rows but y_llm has 1"),
        ("ab", None, None, "y_human must be a sequence.*got 'ab' of type str; put it into a list"),
        (["a", 1], None, None, "y_human mixes labels of the types.*'float', 'str'"),
        ([True, 2], None, None, "y_human mixes labels of the types.*'bool', 'float'"),
        (["a", "b"], [1, 2], None, "labels such as 'a' but y_llm such as 1.*an array of scores"),
        ([1, 2], np.array(["a", "b"]), None, "such as 1 but y_llm such as 'a'; use the same"),
        (5, None, None, "y_human must be a sequence.*got 5"),
        (
            ["a", "b"],
            [0.3, 0.7],
            None,
            "1-D and holds 0.3, which is not a label.*column per class",
        ),
        (None, pd.Series([0.3, NAN]), None, "1-D and holds 0.3"),
        ([0, 1], np.array([0, np.inf]), None, "1-D and holds inf"),
        ([0, 1], pd.DataFrame({0: [0, 1], 1: [1, 0]}), None, "single 1.*float.*votes_to_scores"),
        ([0, 1], [[0, 1], [1, 0]], None, "single 1.*float.*votes_to_scores"),
        (["a", "b"], pd.get_dummies(pd.Series(["a", "b"])), None, "single 1.*float"),
        (None, pl.DataFrame({"a": [True, None], "b": [False, None]}), None, "single 1.*float"),
        ([1, 2], pd.DataFrame({"p": [1, 2], "q": [1, NAN]}), None, "scores.*Int64"),
        ([0, 1], np.array([[0, 0], [NAN, 1]]), None, "sum to 1.*floats beside.*Int64"),
        ([1, 2], np.array([[1, 2], [NAN, 1]]), None, "lie in .*floats beside.*Int64"),
        ([1, 2], np.array([[1, 2, 1], [NAN, 1, 1]]), None, "3 columns.*floats beside.*Int64"),
        (["a", "b"], [[0.5, 0.5], 0.5], None, "rows of 2 entries, but row 1 holds 0.5"),
        (["a", "b"], None, [1, 2], "y_human holds .*'a', 'b'.* not among the classes"),
        (["a", "b"], [["a", "c"], ["a", "a"]], ["a", "b"], "y_llm holds .'c'.* not among"),
        (["a", "b"], ["a", "b"], ["a", "a"], "distinct"),
        ([0.5, 0.7], None, None, "Unknown label type"),
        ([1.0, np.inf], None, None, "infinity"),
        (["a", "b"], [[1.2, -0.2], [0.5, 0.5]], None, r"\[0, 1\], but row 0.*logits"),
        (["a", "b"], [[0.5, 0.5], [0.5, 0.6]], None, "sum to 1.*row 1.*votes_to_scores"),
        (["a", "b"], [[0.5, 0.5], [1.0, NAN]], None, "sum to 1 or be all NaN, but row 1"),
        (["a", "b"], [[0.5, 0.2, 0.3]] * 2, None, "3 columns but there are 2 classes"),
        (["a", "b"], pd.DataFrame({"a": [0.5] * 2, "c": [0.5] * 2}), None, "columns .*'a', 'c'"),
        (["a", "b"], pl.DataFrame({"a": [1.0, 1.0]}), None, "name the score columns after"),
        (["a", "b"], [[0.5, 0.5]] * 2, ["b", "a"], "not sorted.*ambiguous.*DataFrame"),
        (None, [[0.5, 0.5]] * 2, None, "classes of the columns of y_llm are unknown.*classes="),
        (["a", "b"], np.zeros((2, 2, 2)), None, "y_llm must be 1-D or 2-D"),
        (np.zeros((2, 2, 2)), None, None, "y_human must be 1-D or 2-D"),
        ([["a", "b"]] * 2, None, None, "2-D y_human means multilabel.*row 0"),
        ([[1, 0], [2, 0]], None, None, "must hold 0, 1 or missing, but row 1"),
        ([[1, 0], [1]], None, None, r"differ in length: \[1, 2\]"),
        ([[1, 0]] * 2, [1, 0], None, "multilabel with 2 labels but y_llm is 1-D"),
        ([[1, 0]] * 2, [[0.5, 1.5]] * 2, None, r"must lie in \[0, 1\]"),
        ([[1, 0]] * 2, [["x", "y"]] * 2, None, "must hold numbers"),
        ([[1, 0]] * 2, None, ["x"], "2 columns but classes names 1"),
        (pl.LazyFrame({"a": [0, 1]}), None, None, "lazy frame; collect"),
        (["a", "b"], pl.LazyFrame({"a": [0, 1]}), None, "lazy frame; collect"),
    ],
)
def test_errors_of_targets(y_human, y_llm, classes, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        check_targets(y_human, y_llm, 2, classes)


@pytest.mark.parametrize(
    ("y_human", "y_llm", "classes", "message"),
    [
        ({"a": ["x", "y"]}, None, None, "y_human must be a sequence.*dict of columns"),
        (["a", "b"], {"p": ["a", "b"], "q": ["b", "b"]}, None, "y_llm must be.*dict of columns"),
        (["a", "b"], {"a", "b"}, None, "y_llm must be a sequence.*a set has no order"),
        (["a", "b"], "ab", None, "y_llm must be a sequence.*put it into a list"),
        (b"ab", None, None, "y_human must be a sequence.*put it into a list"),
        ([b"a", b"b"], None, None, "y_human holds b'a' of the type bytes, which is not a label"),
        (
            np.array([b"a", b"b"]),
            None,
            None,
            "y_human holds .b'a'. of the type .S1, which are not",
        ),
        (["a", "b"], np.array([b"a", b"b"]), None, "y_llm holds .b'a'. of the type .S1"),
        (
            [{"a": 1}, {"b": 2}],
            None,
            None,
            "holds {'a': 1} of the type dict, which is not a label",
        ),
        (pd.Series([["a"], ["b"]]), None, None, "of the type list, which is not a label"),
        (None, np.array([1j, 2j]), None, "y_llm holds .1j. of the type complex128"),
        (None, [np.complex128(1j), 1], None, r"y_llm mixes labels of the types \['complex128'"),
        ([np.timedelta64(1), 2], None, None, "mixes labels of the types .*'timedelta64'"),
        ([np.timedelta64(1), np.timedelta64(2)], None, None, "of the type timedelta64, which is"),
        (pd.Series([[10**400, 1], [0, 1]]).tolist(), None, None, "must hold 0, 1 or missing"),
        ([], [], None, "no row has a label|X has 2 rows but y_human has 0"),
        (np.array(["2024", "2025"], "M8[Y]"), None, None, "of the type datetime64"),
        (["a", "\ud83d"], None, None, "row 1 of the classes has a lone surrogate"),
        (["a", "b"], None, ["a", "b", "\ud83d"], "row 2 of classes has a lone surrogate"),
        (
            np.array([2.0**53, 1.0]),
            None,
            None,
            "y_human holds the float 9007199254740992.0.*Int64",
        ),
        ([2**53 + 1, 1.0], None, None, "y_human holds whole numbers that numpy would round.*text"),
        ([2**63, -1], None, None, "y_human holds whole numbers that numpy would round"),
        ([10**400, 1.0], None, None, "y_human holds whole numbers that numpy would round"),
        ([2**53 + 1, 1], np.array([1.0, 2.0]), None, "y_human with y_llm holds the float"),
        (["a", "b"], [["0.5", "0.5"], ["1", "0"]], None, "numbers as text, such as '0.5'.*astype"),
        (None, [["0.5", "0.5"], ["1", "0"]], None, "numbers as text, such as '0.5'.*classes="),
        (["a", "b"], [["0.5", "nan"], ["1", "0"]], None, "numbers as text, such as '0.5'"),
        (["a", "b"], [["0", "1"], ["1", "0"]], None, "numbers as text, such as '1'"),
        (["a", "b"], ["0.5", "0.7"], ["a", "b"], "'0.7'.* not among.*If these are scores"),
        (["a", "b"], ["A ", "b"], ["a", "b"], "'A '.* not among.*'A ' differs from 'a' in case"),
        (["a", "b"], None, [["a", "b"], ["c", "d"]], "classes must name each class once"),
        (["a", "b"], None, [["a"], ["c", "d"]], "rows of classes differ in length"),
        (["a", "b"], None, [{"a"}, "b"], "classes mixes labels of the types"),
        (["a", "b"], None, ["a", "b", None], "classes must name each class once"),
        (["a", "b"], None, "ab", "classes must be a sequence"),
        (["a", "b"], None, {"a", "b"}, "classes must be a sequence.*a set has no order"),
        (["a", "b"], None, [], "classes must name each class once"),
        ([[1, 0], [0, 1]], None, ["x", "x"], "classes must name each class once"),
        ([[1, 0], [0, 1]], None, [["x"], ["y"]], "classes must name each class once"),
        (
            [1, 2],
            pd.DataFrame([[0.1, 0.2, 0.7]] * 2, columns=pd.Index([1, "1", 2], dtype=object)),
            [1, 2],
            r"y_llm has the columns \[1, '1', 2\] but the classes are",
        ),
    ],
)
def test_labels_that_would_be_misread(y_human, y_llm, classes, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        check_targets(y_human, y_llm, 2, classes)


@pytest.mark.parametrize(
    ("y_human", "y_llm", "message"),
    [
        (["a", ""], None, r"strings \[''\] count as classes, not as missing.*classes="),
        (["a", "nan"], None, r"strings \['nan'\] count as classes"),
        (["a", "b"], [["a", "<NA>"], ["b", "None"]], r"strings \['<NA>', 'None'\] count as"),
        (
            ["a", "b"],
            [["a", " A"], ["b", "b"]],
            r"classes \[\[' A', 'a'\]\] differ in case or blanks",
        ),
        (["not sure", "b"], ["Not  sure", "b"], "differ in case or blanks only.*classes="),
        (["Good", "Bad"], ["pos", "neg"], "no label in common.*'Bad', 'Good'.*'neg', 'pos'"),
        ([1, 2], [3, 4], "no label in common"),
    ],
)
def test_labels_that_look_like_a_slip(y_human, y_llm, message):
    with pytest.warns(UserWarning, match=message):
        check_targets(y_human, y_llm, 2)
    names = sorted({*y_human, *np.ravel([] if y_llm is None else y_llm).tolist()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_targets(y_human, y_llm, 2, names)  # named by the user: meant


def test_numbers_as_text_can_be_classes():
    y_human, votes = ["4.5", "5"], [["4.5", "5"], ["5", "5"]]
    assert_allclose(check_targets(y_human, votes, 2).scores, [[0.5, 0.5], [0, 1]])
    assert_allclose(check_targets(None, votes, 2, ["4.5", "5"]).scores, [[0.5, 0.5], [0, 1]])


# -- order ----------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("dialogue_id", "text"), ("dialogue_id", "text", "turn")])
def test_canonical_order_does_not_depend_on_row_order(names):
    X = pd.DataFrame({
        "dialogue_id": ["b", "a", "b", "a"],
        "text": ["fine", "hello", "and you?", "hi"],
        "turn": [2, 1, 1, 0],
    })[list(names)].assign(context=["and you?", "hi", "", ""])  # fmt: skip
    y_llm = np.array([[0.1, 0.9], [0.5, 0.5], [NAN, NAN], [0.7, 0.3]])
    y_human = np.array(["n", None, "p", None], dtype=object)

    def ordered(rows):
        moved = X.iloc[rows]
        targets = check_targets(y_human[rows], y_llm[rows], 4)
        order = canonical_order(check_dialogues(moved), targets)
        return moved.iloc[order].reset_index(drop=True)

    first = ordered(np.arange(4))
    assert first["dialogue_id"].is_monotonic_increasing
    for seed in range(4):
        pd.testing.assert_frame_equal(ordered(np.random.RandomState(seed).permutation(4)), first)
