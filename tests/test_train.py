"""From the teacher to people's labels: how far, at which temperature, and what the folds see."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score, log_loss, roc_auc_score
from skorch.callbacks import Callback
from students import student

from sklearn_dialpref import votes_to_scores
from sklearn_dialpref._training.net import hold_out, train
from sklearn_dialpref._training.stages import StageLoss
from sklearn_dialpref._training.train import CAUTIOUS, SHARES, folds
from sklearn_dialpref._training.weights import logits_of
from sklearn_dialpref.datasets import make_dialogues

NAN = float("nan")
TRAIN = "sklearn_dialpref._training.train"
SCHEDULES = ["pretrain_finetune", "joint", "distill_then_joint"]


@pytest.fixture(scope="module")
def data():
    return make_dialogues(n_dialogues=60, n_features=5, human_fraction=0.2, random_state=0)


def known(y):
    return pd.notna(pd.Series(y, dtype=object)).to_numpy()


def stages(clf):
    return list(dict.fromkeys(row["stage"] for row in clf.history_))


def two_classes(n=600, n_human=150, seed=0):
    """Features whose first column tells the class; human labels in the first dialogues."""
    rng = np.random.RandomState(seed)
    X = pd.DataFrame(rng.normal(size=(n, 6)), columns=list("abcdef"))
    truth = np.where(X["a"] > 0, "yes", "no").astype(object)
    X.insert(0, "dialogue_id", np.arange(n) // 10)
    return X, truth, np.where(np.arange(n) < n_human, truth, None)


# -- which stages ---------------------------------------------------------------------------


def test_the_stages_that_the_labels_allow(data):
    both = student(max_epochs=1).fit(data.X, data.y_human, data.y_llm)
    assert stages(both) == ["pretrain", "finetune"]
    assert stages(student(max_epochs=1).fit(data.X, data.y_human)) == ["finetune"]
    assert stages(student(max_epochs=1).fit(data.X, None, data.y_llm)) == ["pretrain"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_epochs_are_numbered_through(data, schedule):
    clf = student(schedule=schedule, max_epochs=3).fit(data.X, data.y_human, data.y_llm)
    assert [row["epoch"] for row in clf.history_] == list(range(1, len(clf.history_) + 1))
    assert len(clf.history_) == 3 * len(stages(clf))


def test_labels_on_different_rows(data):
    y_llm = np.where(known(data.y_human)[:, None], None, np.asarray(data.y_llm, dtype=object))
    clf = student().fit(data.X, data.y_human, y_llm)
    assert stages(clf) == ["pretrain", "finetune"]
    assert clf.score(data.X, data.y_true) > 0.7


def test_row_order_does_not_matter(data):
    order = np.random.RandomState(0).permutation(len(data.X))
    y_human, y_llm = np.asarray(data.y_human, dtype=object), np.asarray(data.y_llm)
    one = student(max_epochs=2).fit(data.X, y_human, y_llm)
    two = student(max_epochs=2).fit(data.X.iloc[order], y_human[order], y_llm[order])
    np.testing.assert_array_equal(one.predict_proba(data.X), two.predict_proba(data.X))
    assert (one.human_weight_, one.temperature_) == (two.human_weight_, two.temperature_)


@pytest.mark.parametrize("loss", ["noise_reduced", "forward_corrected", "cross_entropy"])
def test_every_kind_of_loss_counts(data, loss):
    scores = votes_to_scores(data.y_llm, np.unique(data.y_true)) * 0.6 + 0.4 / 3
    clf = student(loss=loss).fit(data.X, data.y_human, scores)
    assert stages(clf) == ["pretrain", "finetune"]
    assert clf.score(data.X, data.y_true) > 0.7
    default = student().fit(data.X, data.y_human, scores)
    difference = np.abs(clf.predict_proba(data.X) - default.predict_proba(data.X))
    assert difference.mean() > 0.003


def test_multilabel(data):
    truth = np.stack([data.y_true == "class_0", data.y_true != "class_1"], axis=1).astype(float)
    y_human = np.where(np.arange(len(truth))[:, None] % 10 < 3, truth, NAN)
    y_human[0, 1] = NAN
    scores = truth.clip(0.2, 0.8)
    scores[5] = NAN
    clf = student().fit(data.X, y_human, scores)
    assert stages(clf) == ["pretrain", "finetune"]
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
    clf = student()
    with pytest.warns(UserWarning, match="so that each keeps the level that the LLM gave it"):
        clf.fit(X[:2000], human[:2000], llm[:2000])
    assert clf.score(X[2000:], truth[2000:]) > 0.9
    assert f1_score(truth[2000:], clf.predict(X[2000:]), average="macro") > 0.87


# -- how far to follow the human labels -----------------------------------------------------


def test_people_who_contradict_the_llm_are_followed_all_the_way():
    X, truth, y_human = two_classes()
    rng = np.random.RandomState(1)
    # right in a small part, so that it is of use, but mostly by another column
    y_llm = np.where(rng.rand(len(X)) < 0.3, truth, np.where(X["b"] > 0, "yes", "no"))
    clf = student().fit(X, y_human, y_llm)
    assert clf.human_weight_ == 1.0
    assert clf.score(X, truth) > (y_llm == truth).mean() + 0.15


def test_a_teacher_who_is_right_is_not_left_for_few_wrong_human_labels():
    X, truth, _ = two_classes()
    rng = np.random.RandomState(0)
    wrong = np.where(truth == "yes", "no", "yes")
    y_human = np.where(rng.rand(len(X)) < 0.3, wrong, truth)
    y_human[60:] = None
    clf = student(learning_rate=0.01).fit(X, y_human, truth)
    assert clf.human_weight_ <= 0.5
    assert clf.score(X, truth) > 0.95


def test_the_share_is_of_the_way_between_two_students(data, monkeypatch):
    """With a weight of 0 the human labels change no weight, with 1 they change most."""

    def proba(share):
        monkeypatch.setattr(f"{TRAIN}.SHARES", (share,))
        clf = student(max_epochs=5).fit(data.X, data.y_human, data.y_llm)
        assert clf.human_weight_ == share
        sharp = clf.predict_proba(data.X) ** clf.temperature_
        return sharp / sharp.sum(axis=1, keepdims=True)

    teacher = student(max_epochs=5).fit(data.X, None, data.y_llm).predict_proba(data.X)
    distance = [np.abs(proba(share) - teacher).mean() for share in (0.0, 0.5, 1.0)]
    assert distance == sorted(distance)
    assert distance[0] < 1e-6 < 0.02 < distance[-1]


@pytest.fixture(scope="module")
def score_of_the_teachers_student(data):
    return student().fit(data.X, None, data.y_llm).score(data.X, data.y_true)


@pytest.mark.filterwarnings("ignore:y_human has no example")
@pytest.mark.parametrize("n_human", [1, 2, 5])
def test_few_human_labels(data, score_of_the_teachers_student, n_human):
    keep = np.flatnonzero(known(data.y_human))[:n_human]
    y_human = np.full(len(data.X), None, dtype=object)
    y_human[keep] = data.y_true[keep]
    clf = student(classes=sorted(set(data.y_true)))
    clf.fit(data.X, y_human, data.y_llm)
    assert clf.score(data.X, data.y_true) > score_of_the_teachers_student - 0.02
    assert clf.human_weight_ in SHARES
    if n_human == 1:  # none can be held out
        assert (clf.human_weight_, clf.temperature_) == (CAUTIOUS, 1.0)


@pytest.mark.parametrize("labels", ["human", "LLM"])
def test_one_kind_of_labels(data, labels):
    y_human, y_llm = (data.y_human, None) if labels == "human" else (None, data.y_llm)
    clf = student(max_epochs=2).fit(data.X, y_human, y_llm)
    assert clf.human_weight_ == (1.0 if labels == "human" else 0.0)
    assert clf.temperature_ == 1.0


def test_the_temperature_makes_a_student_that_is_too_sure_less_so():
    rng = np.random.RandomState(0)
    X, truth, _ = two_classes(n=1000)
    noisy = np.where(rng.rand(len(X)) < 0.3, np.where(truth == "yes", "no", "yes"), truth)
    y_human = np.where(np.arange(len(X)) < 200, noisy, None)
    clf = student().fit(X, y_human, truth)  # an LLM that knows no doubt
    assert clf.temperature_ > 1.5

    def loss(temperature):
        proba = clf.predict_proba(X)[200:] ** (1 / temperature)
        return log_loss(noisy[200:], proba / proba.sum(axis=1, keepdims=True))

    assert loss(1 / clf.temperature_) > loss(1) + 0.05
    assert loss(1) < min(loss(0.5), loss(0.7), loss(1.5), loss(2), loss(4)) + 0.01


# -- folds ----------------------------------------------------------------------------------


def test_folds_keep_dialogues_whole_and_spread_those_with_human_labels():
    group = np.repeat(np.arange(15), 10)
    fold, n_folds = folds(group, group < 6, 3, seed=1)
    assert n_folds == 3
    by_dialogue = fold.reshape(15, 10)
    assert (by_dialogue == by_dialogue[:, :1]).all()
    assert np.bincount(by_dialogue[:6, 0]).tolist() == [2, 2, 2]
    assert np.bincount(by_dialogue[:, 0]).tolist() == [5, 5, 5]


def test_folds_of_a_single_labelled_dialogue_are_of_rows():
    group = np.repeat(np.arange(3), 10)
    fold, n_folds = folds(group, group < 1, 5, seed=0)
    assert n_folds == 5
    assert np.bincount(fold[:10]).tolist() == [2] * 5


def test_folds_of_few_or_no_labels():
    group = np.repeat(np.arange(3), 10)
    assert folds(group, np.arange(30) == 7, 3, seed=0)[1] == 1
    assert folds(group, np.isin(np.arange(30), [7, 17]), 3, seed=0)[1] == 2


@pytest.fixture
def trainings(monkeypatch):
    """The plans of each call that trains a student."""
    calls = []

    def recorded(student, plans, *rest):
        calls.append(plans)
        return train(student, plans, *rest)

    monkeypatch.setattr(f"{TRAIN}.train", recorded)
    return calls


@pytest.mark.parametrize(("many", "n_folds"), [(10_000, 3), (20, 1)])
def test_many_labels_need_one_fold(data, trainings, monkeypatch, many, n_folds):
    monkeypatch.setattr(f"{TRAIN}.MANY_LABELS", many)
    student(max_epochs=1).fit(data.X, data.y_human, data.y_llm)
    assert len(trainings) == 1 + n_folds + 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_students_of_the_folds_have_not_seen_the_labels_they_are_asked_about(
    data, schedule, trainings, monkeypatch
):
    asked = []

    def recorded(student, rows, chosen):
        if len(trainings) > (schedule != "joint"):  # not where the teacher is judged
            asked.append((len(trainings), np.flatnonzero(chosen)))
        return logits_of(student, rows, chosen)

    monkeypatch.setattr(f"{TRAIN}.logits_of", recorded)
    truth = np.stack([data.y_true == "class_0", data.y_true != "class_1"], axis=1).astype(float)
    y_human = np.where(known(data.y_human)[:, None], truth, NAN)
    student(schedule=schedule, max_epochs=1).fit(data.X, y_human, truth.clip(0.2, 0.8))
    seen_by_all = []
    for number, rows in asked:
        for plan in trainings[number - 1]:
            batches = plan.batches if plan.batches.human else plan.batches.beside
            assert not np.isin(rows, batches.members).any()
        seen_by_all.extend(rows)
    assert len(set(seen_by_all)) == known(data.y_human).sum()


@pytest.mark.parametrize(
    ("schedule", "with_llm"), [*((schedule, True) for schedule in SCHEDULES), ("joint", False)]
)
def test_thresholds_come_from_logits_of_unseen_rows(schedule, with_llm):
    """Labels at random, of rows that have nothing in common: a student can only remember them.

    Where it cannot tell the labels, the best F1 is that of predicting them nearly everywhere;
    thresholds from rows that it remembers would predict as many as there are.
    """
    rng = np.random.RandomState(0)
    X, y = rng.normal(size=(120, 200)), (rng.rand(120, 2) < 0.4).astype(float)
    y_llm = np.where(rng.rand(120, 2) < 0.2, 1 - y, y)
    y_llm[:60] = NAN  # in the other rows the LLM would tell
    y_human = np.where(np.arange(120)[:, None] < 60, y, NAN)
    clf = student(schedule=schedule).fit(X, y_human, y_llm if with_llm else None)
    assert roc_auc_score(y[:60].ravel(), clf.predict_proba(X)[:60].ravel()) > 0.95
    assert clf.predict(rng.normal(size=(300, 200))).mean() > 0.6


class Begun(Callback):
    """Counts the stages that begin."""

    stages = []

    def on_train_begin(self, net, **kwargs):
        self.stages.append(net)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_callbacks_are_not_called_in_the_folds(data, schedule):
    Begun.stages.clear()
    truth = (np.stack([data.y_true == "class_0"] * 2, axis=1)).astype(float)
    clf = student(schedule=schedule, callbacks=[Begun()], max_epochs=1)
    clf.fit(data.X, truth, truth.clip(0.2, 0.8))
    assert len(Begun.stages) == len(stages(clf))


def test_held_out_rows_are_in_no_training(data, trainings, monkeypatch):
    held = []
    monkeypatch.setattr(
        "sklearn_dialpref._training.fit.hold_out",
        lambda *args: held.append(hold_out(*args)) or held[0],
    )
    clf = student(early_stopping=True, validation_fraction=0.3, max_epochs=30)
    clf.fit(data.X, data.y_human, data.y_llm)
    members = [plan.batches.members for plans in trainings for plan in plans]
    assert len(members) == 5
    assert not any(held[0][rows].any() for rows in members)
    assert np.isfinite([row["valid_loss"] for row in clf.history_]).all()
    assert clf.human_weight_ in SHARES and clf.score(data.X, data.y_true) > 0.7


def test_one_bar_for_all(data, capfd):
    student(verbose=1, max_epochs=2).fit(data.X, data.y_human, data.y_llm)
    shown = capfd.readouterr().err
    assert "pretrain 1/2" in shown and "finetune 2/2" in shown
    assert shown.count("\n") == 1  # a bar that is done ends its line


@pytest.mark.usefixtures("default_interrupts")
def test_ctrl_c_in_a_fold_stops_and_raises(data, trainings, monkeypatch):
    human_loss = StageLoss.human_loss

    def interrupted(self, *args):
        os.kill(os.getpid(), signal.SIGINT)
        return human_loss(self, *args)

    monkeypatch.setattr(StageLoss, "human_loss", interrupted)
    clf = student(callbacks=[])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(data.X, data.y_human, data.y_llm)
    assert len(trainings) == 2  # on the LLM's labels, and in the first fold
    assert not hasattr(clf, "net_")


# -- classes without human labels -----------------------------------------------------------


def without(y, name):
    return np.where(np.asarray(y) == name, None, y)


@pytest.mark.parametrize("share", [None, 0.0, 1.0])
def test_a_class_without_human_labels_keeps_the_llms_level(data, share, monkeypatch):
    if share is not None:
        monkeypatch.setattr(f"{TRAIN}.SHARES", (share,))
    y_human = without(data.y_human, "class_2")
    scores = votes_to_scores(data.y_llm, np.unique(data.y_true))
    clf = student()
    with pytest.warns(UserWarning, match=r"no example of \['class_2'\], so that each keeps"):
        clf.fit(data.X, y_human, data.y_llm)
    found = clf.predict_proba(data.X)[:, 2].mean()
    assert found == pytest.approx(np.asarray(scores)[:, 2].mean(), abs=0.01)
    assert f1_score(data.y_true == "class_2", clf.predict(data.X) == "class_2") > 0.6


def fit_warnings(recwarn, clf, *labels):
    recwarn.clear()
    clf.fit(*labels)
    return [str(warning.message) for warning in recwarn.list]


def test_a_class_without_any_label_is_named_once(data, recwarn):
    names = ["class_0", "class_1", "class_2", *(f"other_{number:02}" for number in range(12))]
    clf = student(classes=names, max_epochs=1)
    (message,) = fit_warnings(recwarn, clf, data.X, data.y_human, data.y_llm)
    assert "'other_09'] and 2 more, so that each will hardly be predicted" in message
    assert "'other_10'" not in message and "'class_0'" not in message
    y_human = without(data.y_human, "class_1")
    (message,) = fit_warnings(recwarn, clf, data.X, y_human, data.y_llm)
    assert (
        "['class_1'], so that each keeps the level that the LLM gave it, nor of ['oth" in message
    )
    (message,) = fit_warnings(recwarn, clf, data.X, y_human, None)
    assert "['class_1', 'other_00'" in message and "the LLM" not in message


def test_no_warning_where_each_class_has_labels_or_people_gave_none(data, recwarn):
    clf = student(max_epochs=1)
    assert not fit_warnings(recwarn, clf, data.X, data.y_human, data.y_llm)
    assert not fit_warnings(recwarn, clf, data.X, None, data.y_llm)


def test_labels_without_a_positive_example(data, recwarn):
    truth = np.stack([data.y_true == f"class_{number}" for number in range(3)], axis=1).astype(
        float
    )
    y_human = np.where(known(data.y_human)[:, None], truth, NAN)
    y_human[:, 1], y_human[:, 2] = NAN, 0 * y_human[:, 2]
    y_human, scores = (
        pd.DataFrame(y, columns=["greet", "thank", "order"]) for y in (y_human, truth * 0.8)
    )
    clf = student(max_epochs=1)
    (message,) = fit_warnings(recwarn, clf, data.X, y_human, scores)
    assert "no positive example of ['thank'], so that each keeps the level" in message
    assert "nor of ['order'], so that each will hardly be predicted" in message


# -- pairs beside a pointwise loss ----------------------------------------------------------


def changed_by_pairs(data, y_human, y_llm, X=None, **parameters):
    X = data.X if X is None else X
    found = [
        student(max_epochs=5, pair_weight=weight, **parameters)
        .fit(X, y_human, y_llm)
        .predict_proba(X)
        for weight in (0.0, 3.0)
    ]
    return np.abs(found[0] - found[1]).max()


@pytest.mark.parametrize("loss", ["soft_cross_entropy", "forward_corrected"])
def test_pairs_count_beside_a_pointwise_loss(data, loss):
    assert changed_by_pairs(data, data.y_human, data.y_llm, loss=loss) > 0.01


def test_pairs_count_without_human_labels_and_before_a_joint_stage(data):
    assert changed_by_pairs(data, None, data.y_llm) > 0.01
    changed = changed_by_pairs(data, data.y_human, data.y_llm, schedule="distill_then_joint")
    assert changed > 0.01


def test_pairs_count_nowhere_else(data):
    assert changed_by_pairs(data, data.y_human, data.y_llm, loss="noise_reduced") == 0
    assert changed_by_pairs(data, data.y_human, data.y_llm, schedule="joint") == 0
    assert changed_by_pairs(data, data.y_human, None) == 0
    alone = data.X.drop(columns="dialogue_id").to_numpy()  # no dialogues, no pairs
    assert changed_by_pairs(data, data.y_human, data.y_llm, alone) == 0


def test_pairs_learn_the_order_within_a_dialogue():
    """Of a teacher whose level differs between dialogues, in hard votes or scores."""
    rng = np.random.RandomState(0)
    X = pd.DataFrame(rng.normal(size=(800, 4)), columns=list("abcd"))
    group = np.arange(800) // 10
    level = rng.normal(size=80)[group] * 3
    share = 1 / (1 + np.exp(-(X["a"].to_numpy() + level)))
    X["b"] = level  # which the student could learn
    X.insert(0, "dialogue_id", group)
    truth = np.where(X["a"] > 0, "b", "a")

    def order(weight):
        clf = student(classes=["a", "b"], pair_weight=weight)
        proba = clf.fit(X, None, np.column_stack([1 - share, share])).predict_proba(X)[:, 1]
        return roc_auc_score(truth == "b", proba)

    assert order(10.0) > order(0.0) + 0.01


def test_torch_is_left_as_it_was(data):
    before = torch.get_rng_state()
    student(max_epochs=1).fit(data.X, data.y_human, data.y_llm)
    assert torch.equal(torch.get_rng_state(), before)
