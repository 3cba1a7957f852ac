"""Combining the answers of an ensemble: better where it clearly can be, the mean elsewhere."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_dialpref.annotation.ensemble import (
    Combination,
    agreement,
    combine,
    fit_combination,
    votes,
    weighted_mean,
)


def simulated(accuracies, n=400, n_classes=3, seed=0, bias=None):
    """One-hot votes of members that are right so often, and else say a random other class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    scores = np.zeros((n, len(accuracies), n_classes))
    for member, accuracy in enumerate(accuracies):
        wrong = (y + rng.integers(1, n_classes, size=n)) % n_classes
        answer = np.where(rng.random(n) < accuracy, y, wrong)
        if bias is not None:
            answer = np.where(rng.random(n) < 0.4, bias, answer)
        scores[np.arange(n), member, answer] = 1
    return scores, y, np.arange(n) // 8


def log_loss(scores, y, how):
    proba = combine(scores, how) + 0.01
    return -np.log(proba[np.arange(len(y)), y] / proba.sum(axis=1)).mean()


def test_by_hand():
    scores = np.array([[[1.0, 0.0], [0.4, 0.6]], [[np.nan] * 2, [0.3, 0.7]], [[np.nan] * 2] * 2])
    weights = np.array([0.75, 0.25])
    mean = [[0.75 + 0.1, 0.15], [0.3, 0.7], [np.nan, np.nan]]
    assert_allclose(weighted_mean(scores, weights), mean)
    assert_allclose(combine(scores, Combination(weights, 1.0, np.zeros(2))), mean)
    how = Combination(weights, 2.0, np.array([0.5, -0.5]))
    first = np.exp([0.5 * np.log(0.86) + 0.5, 0.5 * np.log(0.16) - 0.5])
    assert_allclose(combine(scores, how)[0], first / first.sum())
    assert np.isnan(combine(scores, how)[2]).all()


def test_weights_of_zero_do_not_make_nan():
    scores = np.array([[[1.0, 0.0], [np.nan, np.nan]]])
    assert np.isnan(combine(scores, Combination(np.array([0.0, 1.0]), 1.0, np.zeros(2)))).all()


def test_votes_and_agreement():
    scores = np.array([[[0.6, 0.4], [np.nan] * 2, [0.1, 0.9], [0.8, 0.2]], [[np.nan] * 2] * 4])
    assert votes(scores, np.array([10, 20])).tolist() == [[10, None, 20, 10], [None] * 4]
    assert_allclose(agreement(scores), [2 / 3, np.nan])


@pytest.mark.parametrize("part", ["temperature", "bias", "weights"])
def test_each_part_is_learned_where_it_helps_and_can_be_switched_off(part):
    accuracies, bias = {
        "temperature": ([0.7], None),  # a hard vote that is right in 70 % is too sure
        "bias": ([0.9] * 3, 2),
        "weights": ([0.95, 0.4, 0.4, 0.4], None),
    }[part]
    scores, y, groups = simulated(accuracies, bias=bias)
    new_scores, new_y, _ = simulated(accuracies, seed=1, bias=bias)
    others = {"temperature": False, "bias": False, "weights": False}
    learned = fit_combination(scores, y, groups, **{**others, part: True})
    plain = Combination.plain(len(accuracies), 3)
    assert log_loss(new_scores, new_y, learned) < log_loss(new_scores, new_y, plain) - 0.02
    changed = {
        "temperature": learned.temperature != 1,
        "bias": learned.bias.any(),
        "weights": np.ptp(learned.weights) > 0,
    }
    assert changed == {**others, part: True}
    if part == "bias":
        assert learned.bias.argmin() == 2
    if part == "weights":
        assert learned.weights.argmax() == 0 and learned.weights.sum() == pytest.approx(1)
    nothing = fit_combination(scores, y, groups, **others)
    assert (nothing.temperature, nothing.bias.any(), np.ptp(nothing.weights)) == (1, False, 0)


@pytest.mark.parametrize("n", [0, 19, 100])
def test_the_mean_stays_where_labels_are_few_or_say_nothing(n):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), size=(n, 1)).repeat(4, axis=1)  # calibrated by construction
    y = (rng.random((n, 1)) > p[:, 0].cumsum(axis=1)).sum(axis=1)
    learned = fit_combination(p, y, np.arange(n) // 4)
    assert (learned.temperature, learned.bias.any(), np.ptp(learned.weights)) == (1, False, 0)


def test_few_dialogues_teach_nothing():
    scores, y, _ = simulated([0.5, 0.9], n=100)
    learned = fit_combination(scores, y, np.arange(100) // 25)
    assert_array_equal(learned.weights, [0.5, 0.5])


@pytest.mark.parametrize("seed", range(5))
def test_learned_is_never_much_worse_than_the_mean(seed):
    """From 100 labels, whatever the members are."""
    rng = np.random.default_rng(seed)
    accuracies = rng.uniform(0.4, 0.9, size=6)
    scores, y, groups = simulated(accuracies, n=100, seed=seed)
    new_scores, new_y, _ = simulated(accuracies, n=2000, seed=seed + 100)
    learned = fit_combination(scores, y, groups)
    plain = Combination.plain(6, 3)
    assert log_loss(new_scores, new_y, learned) < log_loss(new_scores, new_y, plain) + 0.02


def test_rows_without_any_answer_are_left_out():
    scores, y, groups = simulated([0.9, 0.5], n=200)
    learned = fit_combination(scores, y, groups)
    more = np.concatenate([scores, np.full((50, 2, 3), np.nan)])
    again = fit_combination(more, np.r_[y, np.zeros(50, int)], np.r_[groups, np.arange(50) + 999])
    assert_allclose(again.weights, learned.weights, atol=0.1)
