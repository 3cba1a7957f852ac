"""The benchmark of tasks: simulated votes follow a profile, counts give the measures."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from benchmarks.tasks.data import Problem, draw_human
from benchmarks.tasks.report import task_table, votes_table
from benchmarks.tasks.run import Result, counted, measures
from benchmarks.tasks.simulated import (
    ErrorProfile,
    Simulator,
    between_share,
    kappa,
    simulated_votes,
)
from benchmarks.tasks.states import StateVotes, free_slots, spelled_states
from sklearn_dialpref import joint_goal_accuracy_score, slot_f1_score

PROFILE = ErrorProfile(
    kappa=0.5, class_bias=0.15, rarity=0.05, dialogue_share=0.03, agreement=0.65
)


def problem(kind, y, y_test, n_dialogues=10, **parts):
    def rows(n):
        return pd.DataFrame({"dialogue_id": np.arange(n) % n_dialogues, "text": "x"})

    return Problem("a", kind, rows(len(y)), y, rows(len(y_test)), y_test, None, **parts)


@pytest.mark.parametrize("shares", [[0.6, 0.3, 0.1], [0.5, 0.2, 0.1, 0.1, 0.05, 0.05]])
def test_simulated_votes_have_the_profile_asked_for(shares):
    rng = np.random.default_rng(0)
    truth, groups = rng.choice(len(shares), 2000, p=shares), np.repeat(np.arange(100), 20)
    votes = simulated_votes(truth, groups, len(shares), PROFILE, 0)
    reached = ErrorProfile.of(truth, votes, groups)
    for name, tolerance in (("kappa", 0.03), ("agreement", 0.05), ("rarity", 0.08)):
        assert getattr(reached, name) == pytest.approx(getattr(PROFILE, name), abs=tolerance), name
    assert reached.class_bias < 0.25 and reached.dialogue_share < 0.08


def test_a_seed_fixes_the_simulated_votes():
    truth, groups = np.arange(60) % 3, np.repeat(np.arange(6), 10)
    one, same = (simulated_votes(truth, groups, 3, PROFILE, seed=0) for _ in range(2))
    np.testing.assert_array_equal(one, same)


def test_kappa_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for n_classes in (2, 5):
        one, other = rng.integers(n_classes, size=(2, 50))
        mixed = np.where(rng.random(50) < 0.6, one, other)
        assert kappa(one, mixed) == pytest.approx(cohen_kappa_score(one, mixed))
    assert kappa(one * 0, one * 0) == 0


def test_variance_between_dialogues():
    groups = np.repeat(np.arange(200), 10)
    rng = np.random.default_rng(0)
    level = rng.normal(size=200)[groups]
    assert between_share(level, groups) == pytest.approx(1)
    assert between_share(rng.normal(size=2000), groups) < 0.02
    assert between_share(level + rng.normal(size=2000), groups) == pytest.approx(0.5, abs=0.08)


def test_human_labels_are_those_of_whole_dialogues():
    y = np.array(["a", None, "b", "a"] * 25, dtype=object)
    some = problem("class", y, y)
    human = draw_human(some, 20, seed=0)
    labelled = pd.notna(human)
    assert 20 <= labelled.sum() < 30
    ids = some.X["dialogue_id"].to_numpy()
    whole = np.isin(ids, ids[labelled])
    np.testing.assert_array_equal(labelled, whole & pd.notna(y))


def test_measures_of_classes_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, predicted = rng.choice(list("abcd"), (2, 300)).astype(object)
    some = problem("class", truth, truth)
    values = measures("class", counted(some, predicted, None).sum(axis=0))
    assert values["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert values["macro-F1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    table, guess = (rng.random((2, 300, 3)) < 0.4).astype(float)
    some = problem("labels", table, table)
    values = measures("labels", counted(some, guess, None).sum(axis=0))
    assert values["macro-F1"] == pytest.approx(f1_score(table, guess, average="macro"))


def test_measures_of_states_are_our_own():
    raw = [{"Taxi_1": {"to": ["Home", "home"], "seats": [str(n % 3)]}} for n in range(20)]
    raw += [None, {"Taxi_1": {"seats": ["dontcare"]}}]
    raw += [{"Taxi_1": {"to": [f"place {n}"]}} for n in range(20)]
    free = free_slots(raw)
    assert free == {("Taxi_1", "to")}
    y = spelled_states(raw, free)
    assert y[0] == {("Taxi_1", "to"): ["<set>"], ("Taxi_1", "seats"): ["0"]} and y[20] is None
    guess = np.empty(len(y), dtype=object)
    guess[:] = [{("Taxi_1", "seats"): "1", ("Taxi_1", "to"): "<set>"} for _ in y]
    some = problem("state", y, y)
    values = measures("state", counted(some, guess, None).sum(axis=0))
    known = pd.notna(y)
    assert values["joint goal accuracy"] == joint_goal_accuracy_score(y[known], guess[known])
    assert values["slot F1"] == pytest.approx(slot_f1_score(y[known], guess[known]))


def test_states_of_a_simulated_llm():
    rng = np.random.default_rng(0)
    y = np.empty(600, dtype=object)
    for row in range(600):
        state = {} if row % 6 == 0 else dict(y[row - 1])
        if rng.random() < 0.5:
            state["s", str(rng.integers(3))] = [str(rng.integers(4))]
        y[row] = state
    groups = np.arange(600) // 6
    votes = StateVotes(y, groups, simulator := Simulator(PROFILE))(0)
    assert len(simulator.reached) == 1
    assert votes.shape == (600, 3)
    right = slot_f1_score(y, votes[:, 0])
    assert 0.2 < right < 0.95
    same = [a == b for a, b in zip(votes[:, 0], votes[:, 1], strict=True)]
    assert 0.1 < np.mean(same) < 1


def test_the_table():
    rng = np.random.default_rng(0)
    truth = rng.choice(["a", "b"], 200).astype(object)
    some = problem("class", truth, truth)
    wrong = np.where(rng.random(200) < 0.3, "a", truth).astype(object)
    fits = [
        Result(100, seed, method, 7, counted(some, guess, None), 1.5, 200.0)
        for seed in (0, 1)
        for method, guess in (("theirs", wrong), ("ours", truth))
    ]
    table = task_table(some, fits, "a machine")
    assert "| ours −, accuracy" in table and "7 utterances that the LLM labelled" in table
    lines = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    theirs, ours = (next(cells for cells in lines if name in cells) for name in ("theirs", "ours"))
    lead = 100 * (1 - accuracy_score(truth, wrong))
    assert ours[3:5] == ["1.000 ± 0.000", ""] and theirs[4].startswith(f"+{lead:.1f} [")


def test_the_table_of_votes():
    simulator = Simulator(PROFILE)
    assert votes_table(simulator) == ""
    rng = np.random.default_rng(0)
    simulator(rng.choice(3, 1000, p=[0.6, 0.3, 0.1]), np.arange(1000) // 20, 3, 0)
    lines = [line.split("|") for line in votes_table(simulator).splitlines() if "|" in line]
    asked, reached = (
        next(cells for cells in lines if name in cells[1]) for name in ("asked", "reached")
    )
    assert float(asked[2]) == PROFILE.kappa
    assert float(reached[2]) == pytest.approx(PROFILE.kappa, abs=0.03)
