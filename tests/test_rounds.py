"""Two rounds: what human labels decide, and what the second round learns."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from sklearn_dialpref import DialoguePreferenceClassifier, votes_to_scores
from sklearn_dialpref._batches import Rows
from sklearn_dialpref._heads import HUMAN_STEPS, Heads
from sklearn_dialpref._rounds import (
    human_shares,
    opinions,
    permutation_z,
    posterior,
    teacher_is_useless,
    teacher_log_likelihood,
)
from sklearn_dialpref._stages import HUMAN_STAGE, Recipe, Stage, StageLoss, label_facts
from sklearn_dialpref._student import Student
from sklearn_dialpref.datasets import make_dialogues

NAN = float("nan")


def student(**parameters):
    return DialoguePreferenceClassifier(
        **{"encoder": "precomputed", "random_state": 0, **parameters}
    )


def recipe(max_epochs=None):
    return Recipe(
        margin_scale=1.0,
        min_gap=0.0,
        smoothing=0.1,
        loss_weight=1.0,
        max_epochs=max_epochs,
        learning_rate=5e-4,
        head_pace=1.0,
        batch_size=128,
        early_stopping=False,
        callbacks=[],
        device="cpu",
        seed=0,
        verbose=0,
    )


def heads(n_dialogues=12, n_human=6, flip=0.0, seed=0, max_epochs=5, n_features=8):
    """Heads on ten rows a dialogue; the class is the sign of the first feature."""
    rng = np.random.RandomState(seed)
    n = 10 * n_dialogues
    features = torch.from_numpy(rng.normal(size=(n, n_features)).astype(np.float32))
    truth = (features[:, 0] > 0).long()
    said = torch.where(torch.from_numpy(rng.rand(n) < flip), 1 - truth, truth)
    group = np.repeat(np.arange(n_dialogues), 10)
    human = torch.where(torch.from_numpy(group < n_human), truth, -1)
    rows = Rows(group, human, torch.eye(2)[said], features=features)
    facts = label_facts(rows, np.array(["a", "b"]), None, with_confusion=False)
    options = recipe(max_epochs)
    stages = Stage("distill", "soft_cross_entropy", False), HUMAN_STAGE
    losses = [StageLoss(stage, options, facts) for stage in stages]
    return Heads(features, rows, torch.ones(n, dtype=torch.bool), *losses, 0, options), truth


def fresh_head(n_features=8):
    torch.manual_seed(0)
    return Student(n_features, 2).head


def test_log_likelihood_by_hand():
    # three rows of class 0, of which one is called 1; one of class 1, called 1
    human = torch.tensor([[[1.0, 0.0]]] * 3 + [[[0.0, 1.0]]] + [[[NAN, NAN]]])
    said = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]], [[0.5, 0.5]]])
    right = (3 + 1) / (4 + 2)
    confusion = np.array([[2 + 2 * right, 1 + 2 * (1 - right)], [2 * (1 - right), 1 + 2 * right]])
    confusion /= confusion.sum(axis=1, keepdims=True)
    found = teacher_log_likelihood(human, said, torch.ones(5, dtype=torch.bool))
    np.testing.assert_allclose(found[0, 0], np.log(confusion[:, 0]), rtol=1e-5)
    np.testing.assert_allclose(found[3, 0], np.log(confusion[:, 1]), rtol=1e-5)
    np.testing.assert_allclose(found[4, 0], np.log(confusion).mean(axis=1), rtol=1e-5)


def test_log_likelihood_counts_known_rows_only():
    human = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]] * 10)
    said = human.clone()
    said[10:] = 1 - said[10:]
    known = torch.arange(20) < 10
    found = teacher_log_likelihood(human, said, known)[:, 0]
    assert (found[:10].argmax(1) == human[:10, 0].argmax(1)).all()
    torch.testing.assert_close(
        found[:10], teacher_log_likelihood(human[:10], said[:10], known[:10])[:, 0]
    )


def test_human_shares():
    rows = Rows(np.zeros(2, int), torch.tensor([1, -1]), torch.full((2, 3), 1 / 3))
    shares = human_shares(rows)
    assert shares.shape == (2, 1, 3)
    assert shares[0, 0].tolist() == [0, 1, 0]
    assert shares[1].isnan().all()
    multilabel = Rows(np.zeros(1, int), torch.tensor([[1.0, NAN]]), torch.zeros(1, 2))
    shares = human_shares(multilabel)
    assert shares[0, 0].tolist() == [0, 1]
    assert shares[0, 1].isnan().all()


def test_folds_keep_dialogues_whole_and_spread_those_with_human_labels():
    some, _ = heads(n_dialogues=15, n_human=6)
    fold, n_folds = some.folds(3, seed=1)
    assert n_folds == 3
    by_dialogue = fold.reshape(15, 10)
    assert (by_dialogue == by_dialogue[:, :1]).all()
    assert torch.bincount(by_dialogue[:6, 0]).tolist() == [2, 2, 2]
    assert torch.bincount(by_dialogue[:, 0]).tolist() == [5, 5, 5]


def test_folds_of_a_single_labelled_dialogue_are_of_rows():
    some, _ = heads(n_dialogues=3, n_human=1)
    fold, n_folds = some.folds(5, seed=0)
    assert n_folds == 5
    assert torch.bincount(fold[:10]).tolist() == [2] * 5


def test_no_steps_where_the_head_knows_it_all_and_many_where_it_is_wrong():
    good, _ = heads(n_human=12)
    wrong, _ = heads(n_human=12, flip=1.0)
    everything = torch.ones(120, dtype=torch.bool)
    for some, most in ((good, False), (wrong, True)):
        some.recipe = recipe(max_epochs=300)
        head = some.distilled(fresh_head(), everything, seed=0)
        steps = some.steps_on_human(head)
        assert (steps >= HUMAN_STEPS[-2]) == most
    assert wrong.steps_on_human(head) > good.steps_on_human(
        good.distilled(fresh_head(), everything, seed=0)
    )


def test_opinions_come_from_students_that_have_not_seen_the_row():
    some, _ = heads()
    opinion, evidence = opinions(some, fresh_head(), steps=5)
    fold, _ = some.folds(3, seed=1)
    own = fold == 0
    changed = replace(
        some.rows,
        human=torch.where(own & (some.rows.human >= 0), 1 - some.rows.human, some.rows.human),
        scores=torch.where(own[:, None], 1 - some.rows.scores, some.rows.scores),
    )
    other = replace(some, rows=changed)
    again, weighed = opinions(other, fresh_head(), steps=5)
    torch.testing.assert_close(opinion[own], again[own])
    torch.testing.assert_close(evidence[own], weighed[own].flip(2), rtol=0.2, atol=0.2)
    assert not torch.equal(opinion[~own], again[~own])


def test_posterior_is_better_than_the_teacher_and_keeps_human_labels():
    some, truth = heads(n_dialogues=60, n_human=20, flip=0.3, max_epochs=40)
    scores = posterior(some, *opinions(some, fresh_head(), steps=40))
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(600))
    labelled = some.rows.human >= 0
    assert (scores[labelled].max(dim=1).values == 1).all()
    right = scores.argmax(dim=1) == truth
    assert right[labelled].all()
    said = some.rows.scores.argmax(dim=1) == truth
    assert right[~labelled].float().mean() > said[~labelled].float().mean() + 0.05


def test_no_posterior_without_a_row_that_has_both_labels():
    some, _ = heads()
    scores = some.rows.scores.masked_fill((some.rows.human >= 0)[:, None], NAN)
    apart = replace(some, rows=replace(some.rows, scores=scores))
    assert posterior(apart, *opinions(apart, fresh_head(), 5)) is None


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
    alone = [permutation_z(values[:, [at]], truth[:, [at]]) for at in (0, 1)]
    both = permutation_z(values, truth)
    assert min(alone) < both * 2**0.5 / 2 < max(alone)
    missing = truth.clone()
    missing[20:] = NAN
    assert permutation_z(values, missing) == permutation_z(values[:20], truth[:20])
    assert permutation_z(values, truth * NAN) == float("inf")


@pytest.mark.parametrize(("flip", "n_human"), [(0.3, 12), (0.0, 2), (0.5, 1)])
def test_a_useful_teacher_is_kept_and_any_where_people_labelled_little(flip, n_human):
    some, _ = heads(40, n_human, flip, max_epochs=40)
    head = some.distilled(fresh_head(), torch.ones(400, dtype=torch.bool), seed=0)
    assert not teacher_is_useless(some, head)


def test_chance_calls_a_teacher_useful_rarely():
    # many features, or else what a head learns by chance is often of some use
    some, _ = heads(40, 12, max_epochs=5, n_features=200)
    kept = 0
    for seed in range(20):
        order = torch.from_numpy(np.random.RandomState(seed).permutation(400))
        shuffled = replace(some, rows=replace(some.rows, scores=some.rows.scores[order]))
        everything = torch.ones(400, dtype=torch.bool)
        head = shuffled.distilled(fresh_head(200), everything, seed=seed)
        kept += not teacher_is_useless(shuffled, head)
    assert kept <= 3


@pytest.fixture(scope="module")
def data():
    return make_dialogues(n_dialogues=60, n_features=5, human_fraction=0.2, random_state=0)


def stages(clf):
    return list(dict.fromkeys(row["stage"] for row in clf.history_))


def test_the_stages_that_the_labels_allow(data):
    both = student(max_epochs=1).fit(data.X, data.y_human, data.y_llm)
    assert stages(both) == ["distill", "refine", "finetune"]
    assert [row["epoch"] for row in both.history_] == [1, 2, 3]
    assert stages(student(max_epochs=1).fit(data.X, data.y_human)) == ["finetune"]
    assert stages(student(max_epochs=1).fit(data.X, None, data.y_llm)) == ["distill"]


@pytest.mark.parametrize("n_human", [1, 2, 5])
def test_few_human_labels(data, n_human):
    known = pd.notna(pd.Series(data.y_human, dtype=object)).to_numpy()
    keep = np.flatnonzero(known)[:n_human]
    y_human = np.full(len(known), None, dtype=object)
    y_human[keep] = data.y_true[keep]
    clf = student(max_epochs=2).fit(data.X, y_human, data.y_llm)
    assert np.isfinite(clf.predict_proba(data.X)).all()


def test_labels_on_different_rows(data):
    known = pd.notna(pd.Series(data.y_human, dtype=object)).to_numpy()
    y_llm = np.where(known[:, None], None, np.asarray(data.y_llm, dtype=object))
    clf = student(max_epochs=2).fit(data.X, data.y_human, y_llm)
    assert stages(clf) == ["distill", "finetune"]


def test_a_biased_teacher_is_corrected():
    data = make_dialogues(
        120, n_features=6, class_bias=[0, 2.5, 0], human_fraction=0.2, random_state=0
    )
    clf = student().fit(data.X, data.y_human, data.y_llm)
    alone = student().fit(data.X, data.y_human)
    assert clf.score(data.X, data.y_true) > alone.score(data.X, data.y_true)


def test_a_useless_teacher_is_left_out():
    data = make_dialogues(100, n_features=5, human_fraction=0.2, random_state=1)
    shuffled = np.random.RandomState(0).permutation(np.asarray(data.y_llm))
    with pytest.warns(UserWarning, match="say nothing about the human ones"):
        clf = student().fit(data.X, data.y_human, shuffled)
    assert stages(clf) == ["distill", "finetune"]
    assert [row["epoch"] for row in clf.history_] == list(range(1, len(clf.history_) + 1))
    alone = student().fit(data.X, data.y_human)
    assert clf.score(data.X, data.y_true) > alone.score(data.X, data.y_true) - 0.03


def test_row_order_does_not_matter(data):
    order = np.random.RandomState(0).permutation(len(data.X))
    y_human, y_llm = np.asarray(data.y_human, dtype=object), np.asarray(data.y_llm)
    one = student(max_epochs=2).fit(data.X, y_human, y_llm)
    two = student(max_epochs=2).fit(data.X.iloc[order], y_human[order], y_llm[order])
    np.testing.assert_array_equal(one.predict_proba(data.X), two.predict_proba(data.X))


@pytest.mark.parametrize("loss", ["noise_reduced", "forward_corrected", "cross_entropy"])
def test_every_kind_of_loss(data, loss):
    clf = student(loss=loss).fit(data.X, data.y_human, data.y_llm)
    assert stages(clf) == ["distill", "refine", "finetune"]
    assert clf.score(data.X, data.y_true) > 0.7


@pytest.mark.parametrize("loss", ["noise_reduced", "forward_corrected", "cross_entropy"])
def test_the_loss_counts(data, loss):
    scores = votes_to_scores(data.y_llm, np.unique(data.y_true)) * 0.6 + 0.4 / 3
    clf = student(loss=loss, max_epochs=20).fit(data.X, data.y_human, scores)
    default = student(max_epochs=20).fit(data.X, data.y_human, scores)
    difference = np.abs(clf.predict_proba(data.X) - default.predict_proba(data.X))
    assert difference.mean() > 0.003


def test_multilabel(data):
    truth = np.stack([data.y_true == "class_0", data.y_true != "class_1"], axis=1).astype(float)
    y_human = np.where(np.arange(len(truth))[:, None] % 10 < 3, truth, NAN)
    y_human[0, 1] = NAN
    scores = truth.clip(0.2, 0.8)
    scores[5] = NAN
    clf = student().fit(data.X, y_human, scores)
    assert stages(clf) == ["distill", "refine", "finetune"]
    assert (clf.predict(data.X) == truth).mean() > 0.8


def test_rare_ones_of_many_classes_are_learned():
    rng = np.random.RandomState(0)
    share = 1 / np.arange(1, 41)
    truth = rng.choice(40, 3000, p=share / share.sum())
    centres = rng.normal(size=(40, 48))
    X = pd.DataFrame(centres[truth] + rng.normal(size=(3000, 48)))
    X.columns = X.columns.astype(str)
    X.insert(0, "dialogue_id", np.arange(3000) // 10)
    llm = np.where(rng.rand(3000) < 0.8, truth, rng.choice(40, 3000))
    human = np.where(np.arange(3000) < 300, truth, -1).astype(object)
    human[human == -1] = None
    found = student().fit(X[:2000], human[:2000], llm[:2000])
    assert found.score(X[2000:], truth[2000:]) > 0.9
    assert f1_score(truth[2000:], found.predict(X[2000:]), average="macro") > 0.87
