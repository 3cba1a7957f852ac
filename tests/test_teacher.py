"""What human labels say of the teacher: of no use, or leaning towards a class."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from students import student

from sklearn_dialpref._training.batches import Rows
from sklearn_dialpref._training.teacher import (
    FEWEST_TO_JUDGE,
    GRAVE,
    permutation_z,
    teacher_bias,
    teacher_is_useless,
)
from sklearn_dialpref.datasets import make_dialogues

NAN = float("nan")


def shuffled(y_llm, seed=0):
    return np.random.RandomState(seed).permutation(np.asarray(y_llm))


# -- is it of use ---------------------------------------------------------------------------


def test_permutation_z_against_all_permutations():
    rng = np.random.RandomState(0)
    values = torch.from_numpy(rng.normal(size=(5, 1, 3)))
    truth = np.array([0, 2, 2, 1, 0])
    sums = [
        float(values[np.arange(5), 0, truth[list(order)]].sum())
        for order in itertools.permutations(range(5))
    ]
    found = permutation_z(values, torch.eye(3)[truth][:, None])
    assert found == pytest.approx((sums[0] - np.mean(sums)) / np.std(sums))


def test_permutation_z_leaves_out_what_is_missing_and_sums_labels():
    rng = np.random.RandomState(0)
    values = torch.from_numpy(rng.normal(size=(30, 2, 2)))
    truth = torch.eye(2)[torch.from_numpy(rng.randint(2, size=(30, 2)))]
    alone = [permutation_z(values[:, [label]], truth[:, [label]]) for label in (0, 1)]
    both = permutation_z(values, truth)
    assert min(alone) < both * 2**0.5 / 2 < max(alone)
    missing = truth.clone()
    missing[20:] = NAN
    assert permutation_z(values, missing) == permutation_z(values[:20], truth[:20])
    assert permutation_z(values, truth * NAN) == float("inf")


def test_permutation_z_within_strata():
    """Values that only tell the strata apart say nothing."""
    truth = torch.eye(2)[torch.tensor([0, 1] * 10)][:, None]
    stratum = torch.tensor([0, 0] * 5 + [1, 1] * 5)
    values = (
        torch.eye(2)[stratum][:, None] + 0.01 * torch.eye(2)[torch.arange(20) % 3 % 2][:, None]
    )
    stratum_shares = torch.eye(2)[stratum][:, None]
    assert permutation_z(values, stratum_shares) > 3
    # nothing can change places
    assert permutation_z(values, stratum_shares, stratum) == float("inf")
    assert permutation_z(truth, truth, stratum) > 3


def judged(flip, n, learned=None, seed=0):
    """Whether a teacher of two classes is useless, and a student that repeats it or a value."""
    rng = np.random.RandomState(seed)
    truth = torch.from_numpy(rng.randint(2, size=n))
    answers = torch.where(torch.from_numpy(rng.rand(n) < flip), 1 - truth, truth)
    rows = Rows(np.arange(n), truth, torch.eye(2)[answers])
    logits = 2 * torch.eye(2)[answers if learned is None else truth]
    return teacher_is_useless(rows, np.ones(n, dtype=bool), logits)


def test_a_useful_teacher_is_kept_and_any_where_people_labelled_little():
    assert not judged(0.3, 120)
    assert not judged(0.0, FEWEST_TO_JUDGE)
    assert not judged(1.0, FEWEST_TO_JUDGE - 1)
    assert judged(1.0, FEWEST_TO_JUDGE)


def test_a_weak_teacher_is_kept_where_its_student_knows_more():
    assert judged(0.5, 200, seed=1)
    assert not judged(0.5, 200, learned="truth", seed=1)


def test_chance_calls_a_teacher_useful_rarely():
    assert sum(not judged(0.5, 120, seed=seed) for seed in range(40)) <= 4


@pytest.mark.parametrize("schedule", ["pretrain_finetune", "distill_then_joint"])
def test_a_useless_teacher_is_left_out_as_if_it_were_not_there(schedule):
    data = make_dialogues(100, n_features=5, human_fraction=0.2, random_state=1)
    clf = student(schedule=schedule)
    with pytest.warns(UserWarning, match="say nothing about the human ones"):
        clf.fit(data.X, data.y_human, shuffled(data.y_llm))
    assert clf.teacher_status_ == "left out"
    alone = student().fit(data.X, data.y_human)
    assert alone.teacher_status_ == "absent"
    np.testing.assert_array_equal(clf.predict_proba(data.X), alone.predict_proba(data.X))
    assert [row["epoch"] for row in clf.history_] == [row["epoch"] for row in alone.history_]


def test_a_class_that_only_a_useless_teacher_knows_is_not_predicted():
    data = make_dialogues(100, n_features=5, human_fraction=0.2, class_bias=0, random_state=1)
    y_human = np.where(data.y_human == "class_2", None, data.y_human)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf = student().fit(data.X, y_human, shuffled(data.y_llm))
    messages = " ".join(str(warning.message) for warning in caught)
    assert "say nothing about the human ones" in messages
    assert "each will hardly be predicted" in messages and "keeps the level" not in messages
    assert clf.predict_proba(data.X)[:, 2].mean() < 0.02


def test_a_label_that_only_a_useless_teacher_knows_is_not_predicted():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5))
    truth = (X[:, :3] > 0.5).astype(float)
    y_human = np.where(np.arange(400)[:, None] < 200, truth, NAN)
    y_human[:, 2] = NAN
    clf = student()
    with pytest.warns(UserWarning, match="say nothing about the human ones"):
        clf.fit(X, y_human, shuffled(truth))
    assert not clf.predict(X)[:, 2].any()


# -- does it lean towards a class -----------------------------------------------------------


def biased(size, n_dialogues=120, seed=0, **options):
    options = {"n_features": 6, "class_bias": [0, size, 0], "human_fraction": 0.2, **options}
    return make_dialogues(n_dialogues, random_state=seed, **options)


def test_a_grave_bias_is_corrected():
    data = biased(2.5)
    clf = student().fit(data.X, data.y_human, data.y_llm)
    assert clf.teacher_status_ == "corrected"
    assert clf.teacher_bias_.shape == (3,)
    assert clf.teacher_bias_.sum() == pytest.approx(0, abs=1e-6)
    assert clf.teacher_bias_.argmax() == 1 and clf.teacher_bias_[1] > 1
    assert GRAVE < clf.teacher_bias_gain_ < 1
    answers = pd.DataFrame(data.y_llm).mode(axis=1)[0]
    teacher = (answers.to_numpy() == data.y_true).mean()
    assert clf.score(data.X, data.y_true) > teacher + 0.2
    alone = student().fit(data.X, data.y_human)
    assert clf.score(data.X, data.y_true) > alone.score(data.X, data.y_true) - 0.01


@pytest.mark.parametrize("seed", range(3))
def test_an_unbiased_teacher_is_left_as_it_is(seed):
    data = biased(0.0, seed=seed)
    clf = student(max_epochs=1).fit(data.X, data.y_human, data.y_llm)
    assert clf.teacher_status_ == "used"
    assert np.abs(clf.teacher_bias_).max() < 1
    assert clf.teacher_bias_gain_ < GRAVE


def test_too_few_labels_to_judge_a_bias():
    data = biased(2.5)
    known = np.flatnonzero(pd.notna(data.y_human))
    y_human = np.full(len(data.X), None, dtype=object)
    y_human[known[: FEWEST_TO_JUDGE - 1]] = data.y_true[known[: FEWEST_TO_JUDGE - 1]]
    clf = student(max_epochs=1).fit(data.X, y_human, data.y_llm)
    assert clf.teacher_status_ == "used"
    assert clf.teacher_bias_ is None and clf.teacher_bias_gain_ is None


@pytest.mark.parametrize("labels", ["human", "LLM"])
def test_without_labels_of_both_kinds_there_is_nothing_to_judge(labels):
    data = biased(2.5)
    y_human, y_llm = (data.y_human, None) if labels == "human" else (None, data.y_llm)
    clf = student(max_epochs=1).fit(data.X, y_human, y_llm)
    assert clf.teacher_status_ == ("absent" if labels == "human" else "used")
    assert clf.teacher_bias_ is None and clf.teacher_bias_gain_ is None


def rows_with_bias(n=200, n_classes=4, never=3, seed=0):
    """A teacher that says class 1 too often, never class 3, and answers not every row."""
    rng = np.random.RandomState(seed)
    truth = torch.from_numpy(rng.randint(never, size=n))
    answers = torch.where(torch.from_numpy(rng.rand(n) < 0.6), 1, truth)
    scores = 0.8 * torch.eye(n_classes)[answers] + 0.2 * torch.eye(n_classes)[truth]
    scores[-5:] = NAN
    possible = torch.ones(n, n_classes, dtype=torch.bool)
    possible[::2, 0] = truth[::2] == 0
    scores = torch.where(possible, scores, 0 * scores)
    return Rows(np.arange(n) // 10, truth, scores, possible=possible)


def test_what_the_teacher_cannot_or_never_says_stays_so_when_it_is_corrected():
    rows = rows_with_bias()
    bias = teacher_bias(rows, 0)
    assert bias.counts
    corrected = bias.corrected(rows)
    answered = torch.from_numpy(rows.has_score)
    assert corrected[~answered].isnan().all()
    assert (corrected[answered][:, 3] == 0).all()
    assert (corrected[answered][~rows.possible[answered]] == 0).all()
    torch.testing.assert_close(corrected[answered].sum(dim=1), torch.ones(int(answered.sum())))
    assert corrected[answered][:, 1].mean() < rows.scores[answered][:, 1].mean() - 0.1


def test_a_class_that_nobody_knows_is_not_invented_by_the_correction():
    data = biased(2.5)
    clf = student(classes=["class_0", "class_1", "class_2", "never"])
    with pytest.warns(UserWarning, match=r"\['never'\], so that each will hardly be predicted"):
        clf.fit(data.X, data.y_human, data.y_llm)
    assert clf.teacher_status_ == "corrected"
    assert clf.predict_proba(data.X)[:, 3].max() < 0.01


def test_multilabel_teachers_are_not_corrected():
    data = biased(2.5)
    truth = np.stack([data.y_true == "class_0", data.y_true != "class_1"], axis=1).astype(float)
    y_human = np.where(np.arange(len(truth))[:, None] < 100, truth, NAN)
    clf = student(max_epochs=1).fit(data.X, y_human, truth.clip(0.3, 1.0))
    assert clf.teacher_status_ == "used"
    assert clf.teacher_bias_ is None and clf.teacher_bias_gain_ is None
