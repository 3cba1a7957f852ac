"""Asking until the answers agree: which rows are sure, and how much agreement it takes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_dialpref.annotation.ensemble import Combination, combine
from sklearn_dialpref.annotation.stopping import (
    DEFAULT_LEAD,
    asking_order,
    choose_threshold,
    is_sure,
    lead,
    stopped,
)

NONE = [np.nan, np.nan, np.nan]
A, B, C = np.eye(3).tolist()


def simulated(accuracies, n=400, n_classes=3, seed=0, same=()):
    """One-hot votes that are right so often; the members in ``same`` repeat the first of them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    answers = np.empty((n, len(accuracies)), dtype=int)
    for member, accuracy in enumerate(accuracies):
        wrong = (y + rng.integers(1, n_classes, size=n)) % n_classes
        answers[:, member] = np.where(rng.random(n) < accuracy, y, wrong)
    for member in same:
        answers[:, member] = answers[:, same[0]]
    return np.eye(n_classes)[answers], y, np.arange(n) // 8


def saved(scores, threshold, order=None):
    return np.isnan(stopped(scores, threshold, order)[:, :, 0]).mean()


def accuracy(scores, y):
    return (combine(scores, Combination.plain(*scores.shape[1:])).argmax(axis=1) == y).mean()


# -- which rows are sure --------------------------------------------------------------------


def test_lead_by_hand():
    scores = np.array([[A, A, B], [A, B, C], [A, NONE, NONE], [NONE] * 3, [B, B, B]])
    assert_allclose(lead(scores), [1, 0, 1, 0, 3])
    soft = np.array([[[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]]])
    assert_allclose(lead(soft), [1.2 - 0.7])


def test_lead_of_several_labels_is_that_of_the_least_sure_one():
    scores = np.array(
        [[[1.0, 0.0], [0.9, 0.6], [np.nan] * 2], [[0.0, 0.0]] * 3, [[np.nan] * 2] * 3]
    )
    assert_allclose(lead(scores, multilabel=True), [abs(-1 + 0.2), 3, 0])


def test_one_label_is_a_question_of_two_classes():
    yes = np.random.default_rng(0).random((50, 5, 1))
    yes[:10, 2] = np.nan
    assert_allclose(lead(yes, multilabel=True), lead(np.concatenate([1 - yes, yes], axis=2)))


def test_a_lead_as_large_as_the_threshold_is_enough_however_it_is_summed():
    scores = np.array([[[0.1 + 0.2, 0.0, 0.7 - 0.0]] * 3])
    assert lead(scores)[0] < 1.2  # by rounding
    assert is_sure(scores, 1.2).all() and not is_sure(scores, 1.21).any()


def test_rows_without_answers_are_never_sure():
    assert not is_sure(np.full((2, 4, 3), np.nan), 0.5).any()
    assert not is_sure(np.full((2, 4, 3), np.nan), 0.5, multilabel=True).any()
    assert not is_sure(np.empty((2, 0, 3)), 0.5).any()


# -- stopping -------------------------------------------------------------------------------


def test_stopped_by_hand():
    scores = np.array([[A, A, B, B], [A, B, B, B], [A, NONE, A, B], [A, B, A, B], [NONE] * 4])
    result = stopped(scores, 2)
    left = [[A, A, NONE, NONE], [A, B, B, B], [A, NONE, A, NONE], [A, B, A, B], [NONE] * 4]
    assert_array_equal(result, left)


def test_stopped_asks_in_the_order_given_and_leaves_the_columns():
    scores = np.array([[A, B, A, B]])
    assert_array_equal(stopped(scores, 2, np.array([1, 3, 0, 2])), [[NONE, B, NONE, B]])


def test_stopped_leaves_its_input():
    scores, _, _ = simulated([0.9] * 5, n=20)
    before = scores.copy()
    stopped(scores, 1.5)
    assert_array_equal(scores, before)
    assert_array_equal(stopped(scores, np.inf), scores)


@pytest.mark.parametrize("multilabel", [False, True])
def test_stopped_is_what_asking_in_turn_would_give(multilabel):
    rng = np.random.default_rng(0)
    scores = rng.dirichlet([0.3] * 4, size=(200, 9))
    scores[rng.random((200, 9)) < 0.1] = np.nan
    order = rng.permutation(9)
    asked = np.full_like(scores, np.nan)
    for member in order:
        rows = ~is_sure(asked, 1.5, multilabel=multilabel)
        asked[rows, member] = scores[rows, member]
    assert 0.1 < np.isnan(asked[:, :, 0]).mean() < 0.9
    assert_array_equal(stopped(scores, 1.5, order, multilabel=multilabel), asked)


def test_asking_order_alternates_between_models():
    members = [f"{model}{prompt}" for model in "ab" for prompt in range(3)]
    order = asking_order(n_models=2, n_prompts=3)
    assert [members[index] for index in order] == ["a0", "b0", "a1", "b1", "a2", "b2"]


# -- choosing the threshold -----------------------------------------------------------------


@pytest.mark.parametrize(("n", "per_dialogue"), [(19, 1), (100, 25), (0, 1)])
def test_few_labels_or_dialogues_leave_the_default(n, per_dialogue):
    scores, y, _ = simulated([0.99] * 8, n=n)
    assert choose_threshold(scores, y, np.arange(n) // per_dialogue) == DEFAULT_LEAD


def test_members_that_are_nearly_always_right_need_less_agreement():
    scores, y, groups = simulated([0.98] * 8)
    threshold = choose_threshold(scores, y, groups)
    assert threshold < DEFAULT_LEAD
    new_scores, new_y, _ = simulated([0.98] * 8, seed=1)
    assert saved(new_scores, threshold) > saved(new_scores, DEFAULT_LEAD)
    assert accuracy(stopped(new_scores, threshold), new_y) > accuracy(new_scores, new_y) - 0.005


def test_members_that_repeat_each_other_do_not_decide_alone():
    """Five copies of a weak member are asked before five good ones."""
    how = {"accuracies": [0.5] * 5 + [0.8] * 6, "same": range(5)}
    scores, y, groups = simulated(**how)
    threshold = choose_threshold(scores, y, groups)
    assert threshold > 5
    new_scores, new_y, _ = simulated(**how, n=2000, seed=1)
    loss = accuracy(new_scores, new_y) - accuracy(stopped(new_scores, threshold), new_y)
    assert loss < 0.02
    assert accuracy(new_scores, new_y) - accuracy(stopped(new_scores, DEFAULT_LEAD), new_y) > 0.1
    assert choose_threshold(scores, y, groups, np.arange(11)[::-1]) <= DEFAULT_LEAD


def test_a_choice_is_possible_with_fewer_members_than_the_default_needs():
    scores, y, groups = simulated([0.99] * 3)
    assert choose_threshold(scores, y, groups) == 1.5
    assert saved(scores, 1.5) == pytest.approx(1 / 3, abs=0.02)


def test_rows_without_any_answer_do_not_count():
    scores, y, groups = simulated([0.98] * 8)
    more = np.concatenate([scores, np.full((50, 8, 3), np.nan)])
    again = choose_threshold(more, np.r_[y, np.zeros(50, int)], np.r_[groups, np.arange(50) + 99])
    assert again == choose_threshold(scores, y, groups)
    few = np.where(np.arange(400)[:, None, None] < 19, scores, np.nan)
    assert choose_threshold(few, y, groups) == DEFAULT_LEAD


@pytest.mark.parametrize(("accuracy", "cheaper"), [(0.99, True), (0.7, False)])
def test_choosing_for_several_labels(accuracy, cheaper):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=(300, 2)).astype(float)
    right = rng.random((300, 7, 2)) < accuracy
    scores = np.where(right, y[:, None], 1 - y[:, None])
    y[:200:3, 0] = np.nan  # labels that nobody gave
    y[:200:4, 1] = np.nan
    threshold = choose_threshold(scores, y, np.arange(300) // 6, multilabel=True)
    assert (threshold < DEFAULT_LEAD) == cheaper


def test_the_choice_is_the_same_each_time_and_in_any_order_of_rows():
    scores, y, groups = simulated([0.7] * 9, n=150)
    chosen = {choose_threshold(scores, y, groups, seed=3) for _ in range(2)}
    shuffled = np.random.default_rng(0).permutation(150)
    chosen.add(choose_threshold(scores[shuffled], y[shuffled], groups[shuffled], seed=3))
    assert len(chosen) == 1


def test_labels_that_do_not_clearly_speak_for_less_leave_the_default():
    """At 2.5 the log-loss rises by a little less than 0.05 nats, but not by a standard error."""
    scores, y, groups = simulated([0.8] * 8)
    assert choose_threshold(scores, y, groups) == DEFAULT_LEAD


def test_a_question_that_is_asked_nine_times_counts_once():
    scores, y, groups = simulated([0.8] * 8, n=200, n_classes=2, seed=1)
    yes, y = scores[:, :, 1:], y[:, None].astype(float)
    once = choose_threshold(yes, y, groups, multilabel=True)
    nine = choose_threshold(yes.repeat(9, axis=2), y.repeat(9, axis=1), groups, multilabel=True)
    assert once == nine
