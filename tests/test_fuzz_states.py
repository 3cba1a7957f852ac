"""Generated states, labels and scores: the right answer, or an error that says what to do."""

import warnings
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracles import Oracle, frame
from sklearn.base import BaseEstimator
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import accuracy_score

from sklearn_dialpref import (
    DialogueStateTracker,
    expected_calibration_error,
    flatten_states,
    joint_goal_accuracy_score,
    masked_scorer,
    pairwise_accuracy_score,
    slot_f1_score,
)


def as_array(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


EXAMPLES = pytest.mark.parametrize("n", [120, pytest.param(1500, marks=pytest.mark.fuzz)])

MISSING = st.sampled_from([None, float("nan"), np.nan, pd.NA, pd.NaT, np.datetime64("NaT")])
SLOTS = st.sampled_from(["area", "stars", ("Hotels", "area"), ("Hotels", "stars"), 3])
VALUES = st.sampled_from(["north", "south", "4", "dontcare", 4, 2.5, True, date.min, b"x"])
SINGLE = st.one_of(
    st.text(max_size=3),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.binary(max_size=2),
    st.dates(),
    MISSING,
    VALUES,
)
ANYTHING = st.recursive(
    st.one_of(SINGLE, st.builds(object), st.builds(bytearray, st.binary(max_size=2))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(SLOTS | st.text(max_size=2) | MISSING, inner, max_size=3),
        st.lists(SINGLE, max_size=3).map(as_array),
        st.sets(VALUES, max_size=2),
        st.builds(np.zeros, st.sampled_from([(), 0, 2, (1, 2)])),
    ),
    max_leaves=5,
)
STATES = st.dictionaries(SLOTS, VALUES, max_size=4)
WRITTEN = st.one_of(VALUES, MISSING, st.lists(VALUES | MISSING, min_size=1, max_size=2))
ANY_STATE = st.one_of(STATES, MISSING, st.dictionaries(SLOTS, ANYTHING, max_size=3), ANYTHING)
# nearly right ones too: among wild ones only, hardly any would be read to the end
COLUMNS = st.one_of(
    st.lists(STATES | MISSING, min_size=1, max_size=4),
    st.lists(st.dictionaries(SLOTS, WRITTEN, max_size=3) | MISSING, min_size=1, max_size=4),
    st.lists(ANY_STATE, max_size=4),
)


def run(check, n, *strategies):
    """Call it with n examples: always the same in the quick test, new ones in the long run."""
    bounded = settings(
        max_examples=n,
        deadline=None,
        database=None,
        derandomize=n < 1000,
        suppress_health_check=list(HealthCheck),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        bounded(given(*strategies)(check))()


def answer_or_refusal(function, *arguments, **options):
    """The answer, or None where it was an error that a user can read."""
    try:
        return function(*arguments, **options)
    except (ValueError, TypeError) as error:
        if len(str(error)) < 20:
            raise AssertionError(f"an error that says too little: {error!r}") from error
        return None


# -- metrics of states ----------------------------------------------------------------------


@EXAMPLES
def test_metrics_of_any_states(n):
    containers = st.sampled_from([list, tuple, as_array, pd.Series, iter])
    slots = st.none() | st.lists(SLOTS, max_size=2) | SINGLE
    average = st.sampled_from(["micro", "macro", None, "weighted"])
    numbers = st.sampled_from([0, 1, 2.5, -1, 1e308, np.nan])
    weights = st.none() | st.lists(numbers, min_size=4, max_size=4) | SINGLE

    def check(y_true, y_pred, container, slots, average, weights):
        y_pred = (y_pred * len(y_true))[: len(y_true)] or y_pred
        weights = weights[: len(y_true)] if isinstance(weights, list) else weights
        pair = [container(y) if container is not iter else y for y in (y_true, y_pred)]
        score = answer_or_refusal(
            joint_goal_accuracy_score, *pair, slots=slots, sample_weight=weights
        )
        assert score is None or 0 <= score <= 1
        f1 = answer_or_refusal(slot_f1_score, *pair, slots=slots, average=average)
        values = [] if f1 is None else f1.values() if isinstance(f1, dict) else [f1]
        assert all(0 <= value <= 1 for value in values)

    run(check, n, COLUMNS, COLUMNS, containers, slots, average, weights)


@st.composite
def spelled_states(draw):
    """States, and the same with absent slots, lists of spellings and arrays."""
    plain = draw(st.lists(STATES, min_size=1, max_size=5))
    disguised = []
    for state in plain:
        absent = draw(st.dictionaries(SLOTS, MISSING, max_size=2))
        wraps = [lambda value: value, lambda value: [value, None], lambda value: as_array([value])]
        wrapped = {slot: draw(st.sampled_from(wraps))(value) for slot, value in state.items()}
        disguised.append({**absent, **wrapped})
    return plain, disguised


def brute_force(truth, guesses):
    """Joint goal accuracy, and micro-averaged F1, by their definitions."""
    items = [({*one.items()}, {*other.items()}) for one, other in zip(truth, guesses, strict=True)]
    n_right, n_values = (
        sum(counts)
        for counts in zip(*((len(a & b), len(a) + len(b)) for a, b in items), strict=True)
    )
    joint = np.mean([a == b for a, b in items])
    return joint, 2 * n_right / n_values if n_values else 0.0


@EXAMPLES
def test_metrics_read_states_however_they_are_written(n):
    def check(true, guess):
        truth, guesses = ((y * 5)[:5] for y in (true[0], guess[0]))
        written, guessed = ((y * 5)[:5] for y in (true[1], guess[1]))
        joint, f1 = brute_force(truth, guesses)
        assert joint_goal_accuracy_score(written, guessed) == pytest.approx(joint)
        assert slot_f1_score(written, guessed) == pytest.approx(f1)
        assert joint_goal_accuracy_score(written, truth) == 1.0

    run(check, n, spelled_states(), spelled_states())


# -- flatten_states and the tracker ---------------------------------------------------------


@EXAMPLES
def test_flattened_states_are_plain(n):
    def check(states, absent):
        flat = answer_or_refusal(flatten_states, states, absent=absent)
        if flat is None:
            return
        assert flat.shape == (len(states),)
        again = flatten_states(flat, absent=absent)
        assert list(map(repr, again)) == list(map(repr, flat))
        known = [state for state in flat if state is not None]
        assert not any(isinstance(v, dict) or v is None for state in known for v in state.values())
        if known:
            first = [{slot: as_single(v) for slot, v in state.items()} for state in known]
            assert joint_goal_accuracy_score(known, first) == 1.0

    run(check, n, COLUMNS, st.sampled_from([("",), (), ["none", "north"]]))


def as_single(value):
    return value[0] if isinstance(value, list) else value


@EXAMPLES
def test_nested_states_come_back(n):
    names = st.text(min_size=1, max_size=3)
    paths = st.lists(names, min_size=1, max_size=3).map(tuple)
    value = VALUES | st.lists(st.text(min_size=1, max_size=2), min_size=1, max_size=2)

    def check(flat):
        nested = {}
        for path, leaf in flat.items():
            inner = nested
            for name in path[:-1]:
                inner = inner.setdefault(name, {})
                assume(isinstance(inner, dict))
            assume(path[-1] not in inner)
            inner[path[-1]] = leaf
        expected = {path[0] if len(path) == 1 else path: leaf for path, leaf in flat.items()}
        assert flatten_states([nested]).tolist() == [expected]

    run(check, n, st.dictionaries(paths, value, max_size=4))


@EXAMPLES
def test_trackers_of_any_states(n):
    slots = st.none() | st.dictionaries(SLOTS, st.none() | st.lists(VALUES, max_size=3)) | ANYTHING

    def check(y_human, y_llm, slots, dontcare):
        X = frame([f"text {row}" for row in range(max(len(y_human), 1))])
        y_llm = (y_llm * len(y_human))[: len(y_human)] or None
        tracker = DialogueStateTracker(Oracle(), slots=slots, dontcare=dontcare)
        if answer_or_refusal(tracker.fit, X, y_human, y_llm) is not None:
            predicted = tracker.predict(X)
            assert all(isinstance(state, dict) for state in predicted)
            score = answer_or_refusal(tracker.score, X, y_human)
            assert score is None or 0 <= score <= 1

    run(check, n, COLUMNS, COLUMNS, slots, VALUES | ANYTHING)


@EXAMPLES
def test_a_tracker_gives_back_what_it_learned(n):
    def check(states):
        plain, written = states
        assume(any(plain))
        X = frame([f"text {row}" for row in range(len(plain))])
        tracker = DialogueStateTracker(Oracle()).fit(X, written)
        assert tracker.predict(X).tolist() == plain

    run(check, n, spelled_states())


# -- metrics of classes ---------------------------------------------------------------------

LABELS = st.sampled_from(["a", "b", "c", 1, 0, True, None, np.nan, pd.NA, b"a"])
NUMBERS = st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=2))


@EXAMPLES
def test_metrics_of_any_labels_and_scores(n):
    labels = st.one_of(st.lists(LABELS, max_size=4), st.lists(ANYTHING, max_size=4))
    rows = st.lists(st.floats(0, 1), min_size=2, max_size=3)
    scores = st.one_of(
        st.lists(rows | st.lists(NUMBERS, max_size=3), max_size=4),
        st.lists(NUMBERS, max_size=4),
        SINGLE,
    )
    classes = st.none() | st.lists(LABELS, max_size=3) | ANYTHING
    groups = st.lists(st.sampled_from([0, 1, "a", None]), max_size=4) | st.lists(ANYTHING)
    average = st.sampled_from(["macro", "micro", None, "weighted"])
    n_bins = st.sampled_from([1, 15, 0, -1, 2.5, None, 10**15])

    def check(y_true, y_score, classes, groups, average, n_bins):
        error = answer_or_refusal(
            expected_calibration_error, y_true, y_score, n_bins=n_bins, classes=classes
        )
        assert error is None or 0 <= error <= 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            share = answer_or_refusal(
                pairwise_accuracy_score, y_true, y_score, groups, classes=classes, average=average
            )
        told = any(issubclass(w.category, UndefinedMetricWarning) for w in caught)
        if share is not None and not told:
            assert np.all((np.asarray(share) >= 0) & (np.asarray(share) <= 1))

    run(check, n, labels, scores, classes, groups, average, n_bins)


@st.composite
def labelled_scores(draw):
    """Labels, some missing, probabilities, and dialogues, of the same rows."""
    classes = draw(st.sampled_from([["a", "b"], ["a", "b", "c"], [0, 1], [10, 20, 30]]))
    n_rows = draw(st.integers(1, 8))
    column = st.sampled_from([*classes, None])
    y = draw(st.lists(column, min_size=n_rows, max_size=n_rows))
    weights = st.lists(st.integers(0, 4), min_size=len(classes), max_size=len(classes)).filter(any)
    table = draw(st.lists(weights, min_size=n_rows, max_size=n_rows))
    groups = draw(st.lists(st.sampled_from("xy"), min_size=n_rows, max_size=n_rows))
    proba = np.array(table) / np.sum(table, axis=1, keepdims=True)
    return y, proba, groups, classes


@EXAMPLES
def test_scores_are_those_of_their_definitions(n):
    def check(sample):
        y, proba, groups, classes = sample
        rows = [row for row, label in enumerate(y) if label is not None]
        assume(rows)
        right = [classes.index(y[row]) == proba[row].argmax() for row in rows]
        gap = abs(np.mean(right) - proba[rows].max(axis=1).mean())
        error = expected_calibration_error(y, proba, n_bins=1, classes=classes)
        assert error == pytest.approx(gap)
        pairs = [
            (proba[i, c] > proba[j, c]) + (proba[i, c] == proba[j, c]) / 2
            for c, name in enumerate(classes)
            for i in rows
            for j in rows
            if groups[i] == groups[j] and y[i] == name != y[j]
        ]
        share = pairwise_accuracy_score(y, proba, groups, classes=classes, average="micro")
        assert share == pytest.approx(np.mean(pairs)) if pairs else np.isnan(share)
        scorer = masked_scorer(accuracy_score)
        fixed = Fixed([classes[column] for column in proba.argmax(axis=1)])
        assert scorer(fixed, np.zeros((len(y), 1)), y) == pytest.approx(np.mean(right))

    run(check, n, labelled_scores())


class Fixed(BaseEstimator):
    """Predicts what it was given."""

    def __init__(self, labels):
        self.labels = labels

    def predict(self, X):
        return np.array(self.labels)


@EXAMPLES
def test_scorers_of_any_labels(n):
    predictions = st.sampled_from([["a"] * 4, [1, 0, 1, 0], [[1, 0]] * 4])

    def check(y, labels, scoring):
        X = np.zeros((len(y), 1))
        scorer = answer_or_refusal(masked_scorer, scoring)
        if scorer is not None:
            score = answer_or_refusal(scorer, Fixed(labels[: len(y)]), X, y)
            assert score is None or 0 <= score <= 1

    scoring = st.sampled_from([accuracy_score, "accuracy", None, 3, "no scorer", max])
    run(check, n, st.lists(LABELS | ANYTHING, max_size=4), predictions, scoring)
