"""What a user sees of contexts and of votes turned into scores."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_dialpref._dialogues.validation import check_dialogues
from sklearn_dialpref.preprocessing import neighbours, votes_to_scores, with_context


def make_chats(seed=0, n_dialogues=7):
    """Draw interleaved dialogues with gaps in their turn numbers and an odd index."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 7, n_dialogues)
    X = pd.DataFrame({
        "dialogue_id": np.repeat([f"d{i}" for i in range(n_dialogues)], length),
        "turn": np.concatenate([10 * np.arange(n) for n in length]),
        "text": [f"utterance {i}" for i in range(length.sum())],
        "extra": np.arange(length.sum()),
    })  # fmt: skip
    return X.sample(frac=1, random_state=seed).set_index("extra", drop=False)


def brute_force_context(X, turns):
    contexts = []
    for _, row in X.iterrows():
        same = X[(X["dialogue_id"] == row["dialogue_id"]) & (X["turn"] < row["turn"])]
        before = same.sort_values("turn")["text"].tolist()
        contexts.append(
            "\n".join(before[len(before) - turns :] if turns < len(before) else before)
        )
    return contexts


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 100])
def test_context_equals_brute_force(seed, turns):
    X = make_chats(seed)
    before = X.copy()
    result = with_context(X, turns)
    assert result["context"].tolist() == brute_force_context(X, turns)
    pd.testing.assert_frame_equal(result.drop(columns="context"), before)
    pd.testing.assert_frame_equal(X, before)


def test_context_keeps_polars():
    X = make_chats()
    result = with_context(pl.from_pandas(X), turns=2)
    assert isinstance(result, pl.DataFrame)
    assert result["context"].to_list() == with_context(X, turns=2)["context"].tolist()
    assert result.drop("context").equals(pl.from_pandas(X))


def test_context_follows_row_order_without_turns():
    X = pd.DataFrame({"dialogue_id": [2, 1, 2, 2], "text": ["a", "b", "c", "d"]})
    assert with_context(X)["context"].tolist() == ["", "", "a", "c"]
    assert with_context(X.iloc[::-1])["context"].tolist() == ["", "d", "", "c"]


def test_context_follows_the_numbers_in_text_turns():
    X = pd.DataFrame({"dialogue_id": "a", "text": list("abcdefghijkl")})
    numbered = X.assign(turn=[str(i) for i in range(12)]).iloc[::-1]
    assert with_context(numbered)["context"].tolist() == [*"kjihgfedcba", ""]


def test_context_of_separate_rows_is_empty():
    assert neighbours(check_dialogues(["a", "b"]), range(-3, 0)).tolist() == ["", ""]


def brute_force_transcript(X, turns, following):
    contexts = []
    for _, row in X.iterrows():
        dialogue = X[X["dialogue_id"] == row["dialogue_id"]].sort_values("turn")
        lines = (dialogue["speaker"] + ": " + dialogue["text"]).tolist()
        place = dialogue["turn"].tolist().index(row["turn"])
        before, after = (
            lines[max(0, place - turns) : place],
            lines[place + 1 : place + 1 + following],
        )
        contexts.append("\n".join([*before, f"{row['speaker']}:", *["…"][: len(after)], *after]))
    return contexts


@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize("following", [0, 1, 100])
def test_transcripts_equal_brute_force(turns, following):
    X = make_chats()
    X["speaker"] = np.random.default_rng(0).choice(["Ann", "Bob"], len(X))
    result = with_context(X, turns, following=following, speakers=True)
    assert result["context"].tolist() == brute_force_transcript(X, turns, following)


def test_context_on_both_sides():
    X = pd.DataFrame({"dialogue_id": ["a"] * 3, "text": ["x", "y", "z"]})
    contexts = with_context(X, following=2)["context"].tolist()
    assert contexts == ["…\ny\nz", "x\n…\nz", "y"]


def test_bad_context_input():
    X = make_chats()
    with pytest.raises(ValueError, match="needs a column 'speaker'"):
        with_context(X, speakers=True)
    with pytest.raises(ValueError, match="speaker is missing in row 2"):
        with_context(X.assign(speaker=["a", "b", None, *"c" * (len(X) - 3)]), speakers=True)
    with pytest.raises(ValueError, match="following == -1"):
        with_context(X, following=-1)
    with pytest.raises(TypeError, match="following must be an instance of int"):
        with_context(X, following=1.5)
    with pytest.raises(ValueError, match="column 'context' already"):
        with_context(with_context(X))
    for other in (["a", "b"], X[["dialogue_id", "text"]].to_numpy(), X["text"]):
        with pytest.raises(TypeError, match="needs a DataFrame"):
            with_context(other)
    with pytest.raises(ValueError, match="text"):
        with_context(X.drop(columns="text"))
    with pytest.raises(ValueError, match="turns == -1, must be >= 0"):
        with_context(X, -1)
    with pytest.raises(TypeError, match="turns must be an instance of int"):
        with_context(X, 1.5)
    with pytest.raises(ValueError, match="holds precomputed features"):
        neighbours(check_dialogues(np.zeros((2, 3))), range(-1, 0))


@pytest.mark.parametrize("classes", [["neu", "pos", "neg"], [2, 0, 1], [True, False], [0.5, 1.5]])
@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
@pytest.mark.parametrize("n_annotators", [1, 4])
def test_scores_equal_counts(classes, missing, n_annotators):
    rng = np.random.default_rng(0)
    drawn = rng.integers(-1, len(classes), (40, n_annotators))
    rows = [[missing if d < 0 else classes[d] for d in row] for row in drawn]
    expected = (drawn[:, :, None] == np.arange(len(classes))).sum(axis=1).astype(float)
    expected[(drawn < 0).all(axis=1)] = np.nan
    expected /= expected.sum(axis=1, keepdims=True)
    scores = votes_to_scores(rows, classes)
    assert scores.dtype == np.float64
    assert_allclose(scores, expected)
    if n_annotators == 1:
        assert_allclose(votes_to_scores([row[0] for row in rows], classes), expected)


def test_forms_of_votes():
    rows = [["a", "b"], [None, "b"], [None, None]]
    expected = [[0.5, 0.5], [0, 1], [np.nan, np.nan]]
    frame = pd.DataFrame(rows, columns=["gpt", "llama"])
    for votes in (
        np.array(rows, dtype=object),
        frame,
        frame.astype("category"),
        frame.astype("string"),
        pl.from_pandas(frame),
    ):
        assert_array_equal(votes_to_scores(votes, np.array(["a", "b"])), expected)
    integers = pd.DataFrame({"gpt": [0, None], "llama": [1, None]}, dtype="Int64")
    assert_array_equal(votes_to_scores(integers, [0, 1]), [[0.5, 0.5], [np.nan, np.nan]])
    as_floats = np.array([[0, 1], [1, np.nan]])
    assert_array_equal(votes_to_scores(as_floats, [0, 1]), [[0.5, 0.5], [0, 1]])
    assert_array_equal(votes_to_scores(pl.Series(["b", None]), ["b", "a"])[0], [1, 0])


def test_bad_votes():
    with pytest.raises(
        ValueError, match=r"votes holds \['angry', 'sad'\].*classes.*\['neg', 'pos'\]"
    ):
        votes_to_scores([["pos", "sad"], ["angry", None]], ["neg", "pos"])
    with pytest.raises(ValueError, match=r"\['1'\].*classes \[0, 1\]"):
        votes_to_scores(["1"], [0, 1])
    with pytest.raises(ValueError, match="shape"):
        votes_to_scores(np.zeros((2, 2, 2)), [0, 1])
    with pytest.raises(ValueError, match="'Pos' differs from 'pos' in case or blanks only"):
        votes_to_scores(["Pos"], ["neg", "pos"])
    for votes in ("pos", {"a": ["pos"]}, {"pos"}, b"pos", (vote for vote in ["pos"])):
        with pytest.raises(ValueError, match="votes must be a sequence"):
            votes_to_scores(votes, ["neg", "pos"])
    for classes in ([], ["a", "a"], ["a", None], [["a"], ["b"]], [["a", "b"]]):
        with pytest.raises(ValueError, match="classes must name each class once"):
            votes_to_scores(["a"], classes)
