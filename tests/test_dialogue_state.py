"""Dialogue states: what labels tell of each utterance, tracking, and their metrics."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from oracles import Oracle, frame
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from students import student

from sklearn_dialpref import (
    DialogueStateTracker,
    LabelledGroupKFold,
    flatten_states,
    joint_goal_accuracy_score,
    slot_f1_score,
)

NORTH, SOUTH = {"area": "north"}, {"area": "south"}


def labels_learned(tracker, of="human_"):
    """The changes that the classifier got as labels of each row, None where it got none."""
    table = getattr(tracker.estimator_, of)
    changes = [f"{slot}={value}" for slot, value in tracker.changes_]
    return [
        {name: value for name, value in zip(changes, row, strict=True) if value > 0}
        if not np.isnan(row).all()
        else None
        for row in table
    ]


def human_table(tracker):
    columns = [f"{slot}={value}" for slot, value in tracker.changes_]
    return pd.DataFrame(tracker.estimator_.human_, columns=columns)


# -- what labels tell -----------------------------------------------------------------------


def test_changes_of_hand_made_dialogues():
    X = frame(["n", "thanks", "4", "any", "forget it"], ["s", "n"])
    y = [
        NORTH,
        NORTH,
        {**NORTH, "stars": "4"},
        {**NORTH, "stars": "dontcare"},
        NORTH,
        SOUTH,
        NORTH,
    ]
    tracker = DialogueStateTracker(Oracle()).fit(X, y)
    assert labels_learned(tracker) == [
        {"area=north": 1.0},
        {},
        {"stars=4": 1.0},
        {"stars=dontcare": 1.0},
        {"stars=<cleared>": 1.0},
        {"area=south": 1.0},
        {"area=north": 1.0},
    ]
    assert tracker.slots_ == {"area": ("north", "south"), "stars": ("4",)}
    assert tracker.predict(X).tolist() == y
    assert tracker.score(X, y) == 1.0


def test_row_order_does_not_matter():
    X = frame(["n", "4"], ["s", "4"]).assign(turn=[0, 1, 0, 1])
    y = np.array([NORTH, {**NORTH, "stars": "4"}, SOUTH, {**SOUTH, "stars": "4"}])
    order = [3, 0, 2, 1]
    tracker = DialogueStateTracker(Oracle()).fit(X.iloc[order], y[order])
    assert tracker.predict(X).tolist() == y.tolist()
    assert tracker.predict(X.iloc[order]).tolist() == y[order].tolist()


def test_speakers_without_labels_change_nothing():
    X = frame(["n", "n", "4", "4"], speakers=["user", "system"] * 2)
    y = [NORTH, None, {**NORTH, "stars": "4"}, None]
    tracker = DialogueStateTracker(Oracle()).fit(X, y)
    assert tracker.speakers_ == {"user"}
    assert labels_learned(tracker) == [{"area=north": 1.0}, None, {"stars=4": 1.0}, None]
    new = frame(["4", "n"], speakers=["system", "user"])
    assert tracker.predict(new).tolist() == [{}, NORTH]


def test_between_labels_only_what_stayed_is_known():
    X = frame(["a", "b", "c", "d"], ["n", "5"])
    y = [{"stars": "4"}, None, {**NORTH, "stars": "4"}, None, NORTH, {**NORTH, "stars": "5"}]
    tracker = DialogueStateTracker(Oracle()).fit(X, y)
    human = human_table(tracker)
    assert human["stars=4"].tolist()[:1] == [1.0]
    assert human["stars=5"].tolist()[:3] == [0.0, 0.0, 0.0]
    assert human["area=north"].isna().tolist() == [False, True, True, True, False, True]
    assert human.iloc[3].isna().all()  # after the last label nothing is known


def test_what_held_already_may_have_been_said_again():
    X = frame(["n", "n", "bye"], ["s", "x"])
    y = [NORTH, NORTH, NORTH, SOUTH, {}]
    human = human_table(DialogueStateTracker(Oracle()).fit(X, y))
    np.testing.assert_array_equal(human["area=north"], [1, np.nan, np.nan, 0, 0])
    np.testing.assert_array_equal(human["area=south"], [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(human["area=<cleared>"], [0, 0, 0, 0, 1])


def test_free_slots_are_set():
    X = frame(["at 5", "five sharp", "at 6", "any time", "no"])
    y = [{"time": "5"}, {"time": ["5 pm", "5"]}, {"time": "6"}, {"time": "dontcare"}, {}]
    tracker = DialogueStateTracker(Oracle(), slots={"time": None}).fit(X, y)
    assert labels_learned(tracker) == [
        {"time=<set>": 1.0},
        {},
        {"time=<set>": 1.0},
        {"time=dontcare": 1.0},
        {"time=<cleared>": 1.0},
    ]
    expected = [{"time": "<set>"}] * 3 + [{"time": "dontcare"}, {}]
    assert tracker.predict(X).tolist() == expected


def test_spellings_of_a_categorical_value():
    X = frame(["a", "b"], ["c"])
    y = [{"stars": ["four", "4"]}, {"stars": "4"}, {"stars": "3"}]
    tracker = DialogueStateTracker(Oracle(), slots={"stars": ["3", "4"]}).fit(X, y)
    assert labels_learned(tracker) == [{"stars=4": 1.0}, {}, {"stars=3": 1.0}]


def test_votes_are_averaged():
    X = frame(["n", "4"], ["s", "4"])
    votes = np.empty((4, 2), dtype=object)
    votes[:, 0] = [NORTH, {**NORTH, "stars": "4"}, NORTH, None]
    votes[:, 1] = [NORTH, NORTH, SOUTH, SOUTH]
    y = [NORTH, {**NORTH, "stars": "4"}, None, None]
    tracker = DialogueStateTracker(Oracle()).fit(X, y, votes)
    assert labels_learned(tracker, "llm_") == [
        {"area=north": 1.0},
        {"stars=4": 0.5},
        {"area=north": 0.5, "area=south": 0.5},
        {},
    ]
    only = DialogueStateTracker(Oracle()).fit(X, None, votes)
    assert labels_learned(only) == [None] * 4
    assert only.predict(X)[0] == NORTH


def test_unknown_slots_and_values():
    X = frame(["n", "4"], ["s"])
    y = [NORTH, {**NORTH, "stars": "4"}, SOUTH]
    votes = [{"area": "middle"}, {"area": "north", "mood": "good"}, SOUTH]
    slots = {"area": ["north", "south"], "stars": ["4"]}
    with pytest.warns(UserWarning, match="y_llm: 2 states name slots or values"):
        tracker = DialogueStateTracker(Oracle(), slots=slots).fit(X, y, votes)
    llm = pd.DataFrame(tracker.estimator_.llm_, columns=[str(c.value) for c in tracker.changes_])
    assert llm[["north", "south"]].isna().to_numpy().tolist() == [[True] * 2] * 2 + [[False] * 2]
    assert llm["4"].tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="y_human has 'stars': '4' in row 1, which slots= does"):
        DialogueStateTracker(Oracle(), slots={"area": ["north", "south"]}).fit(X, y)


def test_the_most_probable_of_contradicting_changes_counts():
    class Torn(Oracle):
        def predict_proba(self, X):
            assert [c.value for c in CHANGES] == ["<cleared>", "north", "south"]
            return np.array([[0.1, 0.9, 0.6], [0.9, 0.2, 0.6], [0.1, 0.2, 0.6]])

    X = frame(["n", "s", "x"])
    tracker = DialogueStateTracker(Torn()).fit(X, [NORTH, SOUTH, {}])
    CHANGES = tracker.changes_
    assert tracker.predict(X).tolist() == [NORTH, {}, SOUTH]


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([NORTH, "north"], TypeError, "row 1 holds 'north' of type str"),
        ([NORTH], ValueError, "for each of the 2 utterances"),
        ([None, None], ValueError, "no slot ever changes"),
        ([{}, {}], ValueError, "no slot ever changes"),
        ([[NORTH, NORTH], [NORTH, NORTH]], ValueError, "one state for each utterance"),
    ],
)
def test_states_that_are_refused(y, error, message):
    with pytest.raises(error, match=message):
        DialogueStateTracker(Oracle()).fit(frame(["a", "b"]), y)


def test_dialogues_are_needed():
    with pytest.raises(ValueError, match="X names none"):
        DialogueStateTracker(Oracle()).fit(["a", "b"], [NORTH, SOUTH])


def as_parquet(states, tmp_path):
    """The states as they come back from a Parquet file: absent slots null, lists as arrays."""
    pd.DataFrame({"state": states}).to_parquet(tmp_path / "states.parquet")
    return pd.read_parquet(tmp_path / "states.parquet")["state"]


@pytest.mark.parametrize("absent", [None, float("nan"), np.nan, pd.NA, pd.NaT, np.ma.masked])
def test_slots_with_a_missing_value_are_absent(absent):
    X = frame(["n", "4", "x"], ["s"])
    y = [
        {"area": "north", "stars": absent},
        {"area": ["north", absent], "stars": "4"},
        {"area": absent, "stars": "4"},
        {"area": "south"},
    ]
    plain = [NORTH, {**NORTH, "stars": "4"}, {"stars": "4"}, SOUTH]
    tracker = DialogueStateTracker(Oracle()).fit(X, y, y)
    assert tracker.slots_ == {"area": ("north", "south"), "stars": ("4",)}
    assert tracker.predict(X).tolist() == plain
    assert tracker.score(X, y) == 1.0
    assert joint_goal_accuracy_score(y, plain) == slot_f1_score(y, plain) == 1.0
    assert joint_goal_accuracy_score(plain, plain) == joint_goal_accuracy_score(plain, y) == 1.0
    assert slot_f1_score([{"area": absent}, NORTH], [NORTH, NORTH]) == pytest.approx(2 / 3)


def test_states_from_parquet(tmp_path):
    X = frame(["n", "4", "x"], ["s"])
    y = [{"area": ["north"]}, {"area": ["north"], "stars": ["4", "four"]}, {}, {"area": ["south"]}]
    plain = [NORTH, {**NORTH, "stars": "4"}, {}, SOUTH]
    stored = as_parquet([state or None for state in y], tmp_path)
    stored[2] = {"area": None, "stars": None}  # what Arrow makes of an empty state among others
    assert isinstance(stored[0]["area"], np.ndarray) and stored[0]["stars"] is None
    arrow = pa.array(stored.tolist())
    for states in (
        stored,
        stored.to_numpy(),
        pl.from_arrow(arrow),
        arrow,
        arrow.to_pylist(),
    ):
        tracker = DialogueStateTracker(Oracle()).fit(X, states)
        assert tracker.predict(X).tolist() == plain
        assert tracker.score(X, states) == slot_f1_score(states, plain) == 1.0


def test_states_of_a_wide_table():
    table = pd.DataFrame({"area": ["north", "north", None], "stars": [None, 4, 4]})
    y = table.astype({"stars": "Int64"}).to_dict("records")
    tracker = DialogueStateTracker(Oracle()).fit(frame(["n", "4", "x"]), y)
    assert tracker.slots_ == {"area": ("north",), "stars": (4,)}
    with pytest.raises(TypeError, match=r"row 0 holds 'north'.*to_dict\('records'\)"):
        DialogueStateTracker(Oracle()).fit(frame(["n", "4", "x"]), table[["area"]])


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"area": []}, ValueError, "row 1, slot 'area': an empty list"),
        ({"area": np.array([])}, ValueError, "row 1, slot 'area': an empty list"),
        ({"area": [None]}, ValueError, "row 1, slot 'area': an empty list"),
        ({"hotel": {"area": "x"}}, ValueError, "row 1, slot 'hotel': a nested.*flatten_states"),
        ({"area": [["x"]]}, ValueError, "row 1, slot 'area': a nested list"),
        ({"area": [{"x": 1}]}, ValueError, "row 1, slot 'area': a nested list"),
        ({"area": np.eye(2)}, ValueError, "row 1, slot 'area': a nested list"),
        (
            {"area": bytearray(b"x")},
            TypeError,
            "row 1, slot 'area': bytearray.*cannot be compared",
        ),
        ({"area": iter("x")}, TypeError, "row 1, slot 'area': .*cannot be compared"),
        ({"area": np.array("x")}, TypeError, "row 1, slot 'area': .*cannot be compared"),
        ({None: "x"}, ValueError, "row 1, slot None: a slot without a name"),
        ('{"area": "x"}', TypeError, "row 1 holds .*json.loads"),
        (3, TypeError, "row 1 holds 3 of type int"),
    ],
)
def test_values_that_are_no_values(state, error, message):
    X = frame(["a", "b"])
    for states in ([NORTH, state], np.array([NORTH, state], dtype=object)):
        with pytest.raises(error, match=f"y_human.*{message}"):
            DialogueStateTracker(Oracle()).fit(X, states)
        with pytest.raises(error, match=f"y_llm.*{message}"):
            DialogueStateTracker(Oracle()).fit(X, [NORTH, SOUTH], states)
        for score in (joint_goal_accuracy_score, slot_f1_score):
            with pytest.raises(error, match=f"y_true.*{message}"):
                score(states, [NORTH, NORTH])
            with pytest.raises(error, match=f"y_pred.*{message}"):
                score([NORTH, NORTH], states)


def test_a_value_that_would_read_as_cleared():
    with pytest.raises(ValueError, match="row 1, slot 'area': the value '<cleared>' stands for"):
        DialogueStateTracker(Oracle()).fit(frame(["a", "b"]), [NORTH, {"area": "<cleared>"}])


@pytest.mark.parametrize("value", ["", "not mentioned", ["", "x"]])
def test_placeholders_for_no_value_are_pointed_out(value):
    X, y = frame(["a", "b"]), [NORTH, {"area": "north", "stars": value}]
    with pytest.warns(UserWarning, match=r"row 1, slot 'stars'.*pass flatten_states\(y_human\)"):
        DialogueStateTracker(Oracle()).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        DialogueStateTracker(Oracle()).fit(X, flatten_states(y))


@pytest.mark.parametrize(
    ("slots", "error", "message"),
    [
        (["area"], TypeError, "slots must be a dict"),
        ({"area": "north"}, TypeError, r"slots\['area'\] must be a list of values"),
        ({"area": 3}, TypeError, r"slots\['area'\] must be a list of values"),
        ({"area": ["north", ["south"]]}, ValueError, "list of single values"),
        ({"area": ["north", None]}, ValueError, "list of single values"),
        ({"area": ["north", bytearray(b"x")]}, TypeError, "slots, slot 'area': bytearray"),
    ],
)
def test_slots_that_are_refused(slots, error, message):
    with pytest.raises(error, match=message):
        DialogueStateTracker(Oracle(), slots=slots).fit(frame(["a", "b"]), [NORTH, SOUTH])


def test_values_of_slots_as_arrays():
    X, y = frame(["a", "b"]), [NORTH, SOUTH]
    for values in (
        np.array(["north", "south"]),
        pd.Series(["north", "south"]),
        ("north", "south"),
    ):
        tracker = DialogueStateTracker(Oracle(), slots={"area": values, "name": pd.NA}).fit(X, y)
        assert tracker.slots_ == {"area": ("north", "south"), "name": None}
        assert tracker.predict(X).tolist() == y


def test_dontcare_is_one_value():
    for several in (["dontcare"], ("dontcare",), ()):
        with pytest.raises(TypeError, match=r"dontcare: .* cannot be compared as a value"):
            DialogueStateTracker(Oracle(), dontcare=several).fit(frame(["a"]), [NORTH])


def test_speakers_without_a_name_are_one_speaker():
    X = frame(["n", "4"], speakers=[float("nan"), "user"])
    X["speaker"] = pd.Series([float("nan"), "user"], dtype=object)
    tracker = DialogueStateTracker(Oracle()).fit(X, [NORTH, {**NORTH, "stars": "4"}])
    X["speaker"] = pd.Series([-float("nan"), "user"], dtype=object)
    assert tracker.predict(X).tolist() == [NORTH, {**NORTH, "stars": "4"}]


def test_free_slots_alone_have_no_joint_goal_accuracy():
    tracker = DialogueStateTracker(Oracle(), slots={"area": None}).fit(frame(["a"]), [NORTH])
    with pytest.raises(ValueError, match="all slots are free"):
        tracker.score(frame(["a"]), [NORTH])


# -- flatten_states -------------------------------------------------------------------------


def test_flatten_states_of_multiwoz():
    metadata = {
        "taxi": {"book": {"booked": []}, "semi": {"leaveAt": "", "destination": ""}},
        "hotel": {
            "book": {"booked": [], "people": "2", "day": ""},
            "semi": {"area": "north", "stars": "not mentioned", "parking": None},
        },
    }
    flat = {("hotel", "book", "people"): "2", ("hotel", "semi", "area"): "north"}
    found = flatten_states([metadata, None, {}, pd.NA])
    assert found.tolist() == [flat, None, {}, None]
    assert found.dtype == object
    assert joint_goal_accuracy_score(found, [flat, None, {}, None]) == 1.0


def test_flatten_states_keeps_what_is_flat_and_makes_lists_of_arrays():
    states = [
        {"area": "north", ("Hotels", "stars"): ["4", "four"]},
        {"Hotels": {"stars": np.array(["4", None, ""], dtype=object), "name": np.array([])}},
        {"a": {"b": {"c": 0}}, "d": False},
    ]
    assert flatten_states(states).tolist() == [
        states[0],
        {("Hotels", "stars"): ["4"]},
        {("a", "b", "c"): 0, "d": False},
    ]
    assert flatten_states(pd.Series(states[:1])).tolist() == states[:1]
    assert flatten_states(flatten_states(states)).tolist() == flatten_states(states).tolist()
    assert flatten_states([{"a": "", "b": "none"}], absent=["none"]).tolist() == [{"a": ""}]


@pytest.mark.parametrize(
    ("states", "error", "message"),
    [
        ([{}, {"a": {"b": [{"c": 1}]}}], ValueError, r"row 1, slot \('a', 'b'\): a nested list"),
        ([{"a": {"b": 1}, ("a", "b"): 2}], ValueError, r"two slots are named \('a', 'b'\)"),
        (["north"], TypeError, "row 0 holds 'north'"),
        ([{"a": bytearray(b"x")}], TypeError, "row 0, slot 'a': bytearray"),
        ([[{}, {}]], ValueError, "one state"),
    ],
)
def test_states_that_cannot_be_flattened(states, error, message):
    with pytest.raises(error, match=message):
        flatten_states(states)


def test_flatten_states_refuses_what_refers_to_itself():
    state = {}
    state["a"] = state
    with pytest.raises(ValueError, match="row 0: more than 20 levels"):
        flatten_states([state])
    with pytest.raises(TypeError, match="absent must be a collection"):
        flatten_states([{}], absent="none")


# -- with the classifier --------------------------------------------------------------------


def make_states(n_dialogues, seed):
    """Features that show what an utterance changes, and the states."""
    rng = np.random.default_rng(seed)
    what = rng.integers(0, 6, size=(n_dialogues, 5))
    effects = [("area", "north"), ("area", "south"), ("stars", "4"), ("stars", "5"), None, None]
    states = []
    for dialogue in what:
        state = {}
        for number in dialogue:
            if effects[number]:
                state = {**state, effects[number][0]: effects[number][1]}
            states.append(state)
    features = np.eye(6)[what.ravel()] + rng.normal(0, 0.1, size=(what.size, 6))
    X = pd.DataFrame(features).assign(dialogue_id=np.repeat(np.arange(n_dialogues), 5))
    return X, np.array(states, dtype=object)


def test_a_student_tracks_states():
    X, y = make_states(60, 0)
    labelled = np.arange(len(y)) < 150
    tracker = DialogueStateTracker(student()).fit(X, np.where(labelled, y, None), y)
    X_new, y_new = make_states(20, 1)
    assert tracker.score(X_new, y_new) > 0.95
    again = pickle.loads(pickle.dumps(tracker))
    assert again.predict(X_new).tolist() == tracker.predict(X_new).tolist()


def test_cross_validation():
    X, y = make_states(40, 0)
    tracker = clone(DialogueStateTracker(student())).set_params(estimator__pooling="model")
    cv = LabelledGroupKFold(2)
    scores = cross_val_score(tracker, X, y, cv=cv, params={"y_llm": y}, error_score="raise")
    assert scores.min() > 0.8
