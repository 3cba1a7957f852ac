"""Multilabel students: where they begin, and the thresholds of their predictions."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import f1_score
from students import student

from sklearn_dialpref._student.student import Head
from sklearn_dialpref._training.batches import Rows
from sklearn_dialpref._training.stages import initial_level
from sklearn_dialpref._training.thresholds import f1_thresholds

NAN = float("nan")


def logits_and_truth(n, level=-2.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(level, 2, size=(n, 2))
    return torch.from_numpy(logits), torch.from_numpy((rng.random((n, 2)) < expit(logits)) * 1.0)


def test_the_threshold_of_the_best_f1_is_found():
    logits, truth = logits_and_truth(40_000)
    found = f1_thresholds(truth, logits, 0)
    # of calibrated probabilities it is half of the best F1 (Lipton et al., 2014)
    predicted = expit(logits.numpy()) >= found
    best = f1_score(truth.numpy(), predicted, average=None)
    np.testing.assert_allclose(found, best / 2, atol=0.02)


def test_few_rows_are_close_to_it_and_better_than_the_single_best():
    many_logits, many = logits_and_truth(40_000, seed=1)
    gains = []
    for seed in range(10):
        logits, truth = logits_and_truth(60, seed=2 + seed)
        mean = f1_thresholds(truth, logits, seed)
        cuts = [
            max(score, key=lambda cut, true=true, score=score: f1_score(true, score >= cut))
            for true, score in zip(truth.T.numpy(), logits.T.numpy(), strict=True)
        ]
        f1 = [
            f1_score(many.numpy(), expit(many_logits.numpy()) >= cut, average="macro")
            for cut in (mean, expit(np.array(cuts)))
        ]
        gains.append(f1[0] - f1[1])
    assert np.mean(gains) > 0.002


def test_ties_and_missing_labels():
    logits = torch.tensor([[2.0], [1.0], [1.0], [0.0], [5.0], [float("nan")]])
    truth = torch.tensor([[1.0], [1.0], [0.0], [0.0], [float("nan")], [1.0]])
    cut = np.log(f1_thresholds(truth, logits, 0) / (1 - f1_thresholds(truth, logits, 0)))
    assert 0.5 < cut[0] < 1.5  # between or beside the tied ones
    assert f1_thresholds(truth, None, 0).tolist() == [0.5]
    assert f1_thresholds(truth * 0, logits, 0).tolist() == [0.5]


def test_a_label_that_nobody_learned_does_not_take_in_every_row():
    logits, truth = logits_and_truth(300)
    noise = torch.from_numpy(np.random.default_rng(5).normal(-4, 1, size=300))
    rare = torch.zeros(300, dtype=torch.float64)
    rare[[3, 141, 290]] = 1.0
    truth, logits = torch.column_stack([truth, rare]), torch.column_stack([logits, noise])
    found = f1_thresholds(truth, logits, 0)
    assert (expit(noise.numpy()) >= found[2]).mean() < 0.05
    never = torch.column_stack([truth, rare * 0])
    common = f1_thresholds(never, torch.column_stack([logits, noise]), 0)[3]
    assert found[:2].min() - 0.1 < common < found[:2].max() + 0.1


def test_the_same_seed_gives_the_same_thresholds():
    logits, truth = logits_and_truth(50)
    np.testing.assert_array_equal(f1_thresholds(truth, logits, 3), f1_thresholds(truth, logits, 3))
    assert (f1_thresholds(truth, logits, 3) != f1_thresholds(truth, logits, 4)).any()


@pytest.mark.parametrize(
    ("schedule", "with_llm"),
    [  # without an LLM all schedules are one stage on the human labels
        ("pretrain_finetune", True),
        ("joint", True),
        ("distill_then_joint", True),
        ("joint", False),
    ],
)
def test_rare_labels_are_predicted(schedule, with_llm):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 5))
    truth = (rng.random((600, 2)) < expit(2 * X[:, :2] - 3.5)).astype(float)  # about a tenth
    y_human = np.where(np.arange(600)[:, None] < 200, truth, np.nan)
    y_llm = np.where(rng.random(truth.shape) < 0.15, 1 - truth, truth) if with_llm else None
    clf = student(schedule=schedule, max_epochs=12).fit(X, y_human, y_llm)
    assert ((clf.thresholds_ > 0) & (clf.thresholds_ < 0.5)).all()
    proba = clf.predict_proba(X[200:])
    np.testing.assert_array_equal(clf.predict(X[200:]), proba >= clf.thresholds_)
    f1 = [f1_score(truth[200:], proba >= cut, average="macro") for cut in (clf.thresholds_, 0.5)]
    assert f1[0] > f1[1] + 0.02


def test_no_thresholds_are_left_of_another_fit():
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.zeros((40, 2))
    y[::2] = 1
    clf = student(max_epochs=1).fit(X, y)
    assert clf.thresholds_.shape == (2,)
    clf.fit(X, y[:, 0])
    assert not hasattr(clf, "thresholds_")


def test_llm_labels_of_a_single_dialogue():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(40, 3))).assign(dialogue_id=np.repeat(np.arange(4), 10))
    y = (rng.random((40, 2)) < 0.5).astype(float)
    y_llm = np.where(np.arange(40)[:, None] < 10, y, np.nan)
    clf = student(schedule="joint", max_epochs=1)
    assert np.isfinite(clf.fit(X, y, y_llm).thresholds_).all()


def test_many_rare_labels_are_learned():
    rng = np.random.default_rng(0)
    y = (rng.random((3000, 40)) < 0.015).astype(float)
    X = y @ rng.normal(size=(40, 300)) + rng.normal(size=(3000, 300))
    clf = student().fit(X[:2000], y[:2000])
    proba = clf.predict_proba(X[2000:])
    assert f1_score(y[2000:], proba >= 0.5, average="micro") > 0.6
    np.testing.assert_allclose(proba.mean(axis=0), y.mean(axis=0), atol=0.01)


def test_where_a_multilabel_student_begins():
    human = torch.tensor([[1.0, NAN, 0.0], [0.0, NAN, NAN]])
    scores = torch.tensor([[NAN, 0.25, NAN], [NAN, 0.75, NAN]])
    rows = Rows(np.arange(2), human, scores, features=torch.zeros(2, 4))
    level = initial_level(rows)
    np.testing.assert_allclose(torch.sigmoid(level), [0.5, 0.5, 0.25])
    torch.manual_seed(0)
    head = Head(4, 3, width=128, dropout=0.5)
    drawn = head.output.bias.clone()
    head.set_prior_logits(level)
    torch.testing.assert_close(head.output.bias, drawn + level)
    head.set_prior_logits(2 * level)
    torch.testing.assert_close(head.output.bias, drawn + 2 * level)


@pytest.mark.slow
def test_a_useless_teacher_leaves_its_frequencies_behind():
    rng = np.random.default_rng(0)
    y = (rng.random((600, 12)) < 0.05).astype(float)
    X = y @ rng.normal(size=(12, 60)) + rng.normal(size=(600, 60))
    y_human = np.where(np.arange(600)[:, None] < 300, y, np.nan)
    y_llm = rng.choice([0.0, 1.0], y.shape)  # half of all, at random
    clf = student()
    with pytest.warns(UserWarning, match="say nothing about the human ones"):
        with_llm = clf.fit(X, y_human, y_llm).predict_proba(X)
    without = clf.fit(X, y_human).predict_proba(X)
    np.testing.assert_allclose(with_llm.mean(axis=0), without.mean(axis=0), atol=0.02)
