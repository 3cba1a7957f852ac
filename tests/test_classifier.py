"""What a user sees of the estimator, on precomputed features."""

import os
import re
import signal
import threading

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from skorch.callbacks import Callback
from students import student

from sklearn_dialpref import expected_calibration_error
from sklearn_dialpref._training.calibration import level_shift, scale_and_shift
from sklearn_dialpref.datasets import make_dialogues
from sklearn_dialpref.losses import LOSSES, noise_reduced


@pytest.fixture(scope="module")
def data():
    return make_dialogues(n_dialogues=40, n_features=6, random_state=0, human_fraction=0.25)


SCHEDULES = ["pretrain_finetune", "joint", "distill_then_joint"]
SOME = {noise_reduced, "soft_cross_entropy", "forward_corrected"}  # one of each kind of loss


@pytest.mark.parametrize(
    ("loss", "schedule"),
    [
        pytest.param(loss, schedule, marks=[] if in_short else pytest.mark.slow)
        for loss in [*LOSSES, noise_reduced]
        for schedule in SCHEDULES
        for in_short in [loss in SOME or schedule == "joint"]
    ],
)
def test_every_loss_and_schedule_learns(data, loss, schedule):
    clf = student(loss=loss, schedule=schedule).fit(data.X, data.y_human, data.y_llm)
    assert accuracy_score(data.y_true, clf.predict(data.X)) > 0.6
    proba = clf.predict_proba(data.X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert np.isfinite(proba).all()
    assert pd.DataFrame(clf.history_)["train_loss"].notna().all()


@pytest.mark.parametrize("schedule", ["pretrain_finetune", "joint", "distill_then_joint"])
def test_full_method_beats_human_labels_alone(schedule):
    data = make_dialogues(
        n_dialogues=160, n_features=20, human_fraction=0.02, class_bias=[0, 1, 0], random_state=0
    )
    train = pd.factorize(data.X["dialogue_id"])[0] < 80
    X, y_human, y_llm = data.X[train], data.y_human[train], data.y_llm[train]
    others = data.X[~train], data.y_true[~train]
    human = student().fit(X, y_human)
    both = student(schedule=schedule).fit(X, y_human, y_llm)
    assert both.score(*others) > human.score(*others) + 0.05


def test_same_rows_shuffled_same_seed_other_seed(data):
    X, y_human, y_llm = data.X, np.asarray(data.y_human), np.asarray(data.y_llm)
    order = np.random.RandomState(1).permutation(len(X))

    def proba(rows, seed=0):
        clf = student(random_state=seed, max_epochs=2)
        return clf.fit(X.iloc[rows], y_human[rows], y_llm[rows]).predict_proba(X)

    expected = proba(np.arange(len(X)))
    np.testing.assert_array_equal(proba(order), expected)
    np.testing.assert_array_equal(proba(np.arange(len(X))), expected)
    assert not np.array_equal(proba(np.arange(len(X)), seed=1), expected)


def test_torch_random_state_is_left_alone(data):
    import torch

    before = torch.get_rng_state()
    student(max_epochs=1).fit(data.X, data.y_human, data.y_llm)
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_keep_their_type(data):
    codes = pd.factorize(data.y_true)[0]
    few = np.arange(len(codes)) % 3 == 0
    for labels in (codes, codes > 0, data.y_true):
        y_human = pd.Series(np.asarray(labels)).astype(object).where(few, None)
        clf = student(max_epochs=2).fit(data.X, y_human, np.asarray(labels))
        assert clf.predict(data.X).dtype.kind == np.asarray(list(labels)).dtype.kind
        assert set(clf.predict(data.X)) <= set(labels)


def test_no_human_labels_at_all_sets_the_level_by_the_teacher(data):
    clf = student(schedule="pretrain_finetune").fit(data.X, None, data.y_llm)
    assert [row["stage"] for row in clf.history_[-1:]] == ["pretrain"]
    mean = clf.predict_proba(data.X).mean(axis=0)
    np.testing.assert_allclose(mean, np.asarray(data.y_llm_scores).mean(axis=0), atol=0.02)


def test_level_shift_matches_the_mean_score():
    import torch

    rng = np.random.RandomState(0)
    logits = torch.from_numpy(rng.normal(size=(50, 3)))
    scores = torch.softmax(torch.from_numpy(rng.normal(size=(50, 3))), dim=1)
    shift = level_shift(logits, scores, False, torch.ones(3, dtype=torch.bool))
    found = torch.softmax(logits + shift, dim=1).mean(dim=0)
    torch.testing.assert_close(found, scores.mean(dim=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("level", [False, True])
def test_scale_and_shift_undo_a_wrong_scale_and_level(multilabel, level):
    import torch

    rng = np.random.RandomState(0)
    right = torch.from_numpy(rng.normal(size=(2000, 3)))
    right -= 0 if multilabel else right.mean(dim=1, keepdim=True)
    scores = torch.sigmoid(right) if multilabel else torch.softmax(right, dim=1)
    free = torch.full((3,), level)
    wrong = 4 * right + (torch.tensor([-2.0, 0.0, 2.0]) if level else 0)
    scale, shift = scale_and_shift(wrong, scores, multilabel=multilabel, free=free)
    assert scale == pytest.approx(0.25, rel=0.01)
    torch.testing.assert_close(scale * wrong + shift, right, atol=0.1, rtol=0)


def test_scale_is_never_raised():
    import torch

    right = torch.from_numpy(np.random.RandomState(0).normal(size=(500, 3)))
    scores = torch.softmax(right, dim=1)
    free = torch.zeros(3, dtype=torch.bool)
    assert scale_and_shift(right / 4, scores, multilabel=False, free=free)[0] == 1.0


def test_pairs_of_hard_votes_leave_probabilities_usable():
    noisy = make_dialogues(n_dialogues=150, n_features=6, separation=0.7, random_state=0)
    clf = student(
        schedule="joint", margin_scale=20, loss_weight=3, learning_rate=5e-3, max_epochs=10
    ).fit(noisy.X, noisy.y_human, noisy.y_llm[:, 0])
    proba = clf.predict_proba(noisy.X)
    # .28 where the pairs' margins alone set the scale
    assert expected_calibration_error(noisy.y_true, proba, classes=clf.classes_) < 0.1


@pytest.mark.parametrize("schedule", ["pretrain_finetune", "distill_then_joint"])
def test_class_without_human_labels_is_not_unlearned(data, schedule):
    y_human = pd.Series(data.y_human, dtype=object)
    y_human = y_human.where(y_human != "class_2", None)
    clf = student(schedule=schedule, loss="soft_cross_entropy")
    clf.fit(data.X, y_human, data.y_llm)
    assert (clf.predict(data.X) == "class_2").mean() > 0.1


def test_dialogues_of_one_row_have_no_pairs_and_still_fit(data):
    X = data.X.assign(dialogue_id=np.arange(len(data.X)))
    clf = student(loss="noise_reduced").fit(X, data.y_human, data.y_llm)
    assert np.isfinite(clf.predict_proba(X)).all()
    assert clf.score(X, data.y_true) > 0.6
    found = [
        student(loss="noise_reduced", schedule="joint").fit(X, data.y_human, y_llm).predict(X)
        for y_llm in (data.y_llm, np.roll(data.y_llm, 1, axis=0))
    ]
    np.testing.assert_array_equal(*found)  # no order of the LLM was learned from


def test_rows_without_any_label_do_not_change_the_model(data):
    y_llm = np.asarray(data.y_llm, dtype=object).copy()
    y_human = np.asarray(data.y_human, dtype=object).copy()
    first = data.X["dialogue_id"] == data.X["dialogue_id"].iloc[0]
    y_llm[first], y_human[first] = None, None
    clf = student(max_epochs=2).fit(data.X, y_human, y_llm)
    assert np.isfinite(clf.predict_proba(data.X)).all()
    without = student(max_epochs=2).fit(data.X[~first], y_human[~first], y_llm[~first])
    np.testing.assert_array_equal(clf.predict_proba(data.X), without.predict_proba(data.X))


def test_multilabel(data):
    truth = np.stack([data.y_true == "class_0", data.y_true != "class_1"], axis=1).astype(float)
    y_human = truth.copy()
    y_human[40:] = np.nan
    y_human[3, 1] = np.nan
    scores = np.clip(truth, 0.1, 0.9)
    for loss in ("noise_reduced", "soft_cross_entropy", "cross_entropy", "forward_corrected"):
        clf = student(loss=loss, schedule="joint", class_weight="balanced", max_epochs=8)
        clf.fit(data.X, y_human, scores)
        assert clf.multilabel_
        assert clf.predict(data.X).shape == truth.shape
        assert (clf.predict(data.X) == truth).mean() > 0.8
        assert clf.score(data.X, y_human) > 0.5
    only_llm = student(max_epochs=2).fit(data.X, np.full_like(truth, np.nan), scores)
    assert np.isfinite(only_llm.predict_proba(data.X)).all()


@pytest.mark.parametrize("class_weight", ["balanced", {"class_0": 30.0}])
def test_class_weight(data, class_weight):
    y = pd.Series(data.y_true, dtype=object)
    rare = y.where((y != "class_0") | (np.arange(len(y)) % 8 == 0), None)
    plain = student(max_epochs=30).fit(data.X, rare)
    weighted = student(max_epochs=30, class_weight=class_weight).fit(data.X, rare)
    counts = [(clf.predict(data.X) == "class_0").sum() for clf in (plain, weighted)]
    assert counts[1] > counts[0]


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), 1e300, 1e-300])
def test_class_weights_that_no_loss_bears(data, weight):
    with pytest.raises(ValueError, match=r"'class_0' the weight .*0 or from 1e-10 to 1e\+10"):
        student(class_weight={"class_0": weight}).fit(data.X, data.y_human)


@pytest.mark.parametrize("weight", ["heavy", None, True])
def test_class_weights_are_numbers(data, weight):
    with pytest.raises(TypeError, match=f"'class_0' {weight!r} of type"):
        student(class_weight={"class_0": weight}).fit(data.X, data.y_human)


def test_class_weight_of_labels():
    rng = np.random.RandomState(0)
    X, y = rng.normal(size=(80, 3)), np.zeros((80, 2))
    y[:6] = 1
    plain = student(max_epochs=20).fit(X, y)
    weighted = student(max_epochs=20, class_weight={0: 50.0}).fit(X, y)
    assert (weighted.predict_proba(X)[:, 0] > plain.predict_proba(X)[:, 0]).all()


def test_early_stopping_stops_and_reports(data):
    clf = student(early_stopping=True, max_epochs=200, learning_rate=0.05, validation_fraction=0.3)
    clf.fit(data.X, data.y_human, data.y_llm)
    history = pd.DataFrame(clf.history_)
    by_stage = history.groupby("stage")["valid_loss"]
    assert by_stage.count().to_dict() == history["stage"].value_counts().to_dict()
    assert history["stage"].unique().tolist() == ["pretrain", "finetune"]
    assert len(history) < 400


def test_early_stopping_without_training_rows(data):
    one = pd.Series(data.y_human, dtype=object)
    keep = data.X["dialogue_id"] == data.X["dialogue_id"][one.notna().to_numpy().argmax()]
    clf = student(early_stopping=True)
    with pytest.raises(ValueError, match="validation_fraction"):
        clf.fit(data.X, pd.Series(data.y_true, dtype=object).where(keep, None))


class Stop(Callback):
    """End the stage, as skorch's callbacks do."""

    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def test_a_callback_can_end_a_stage(data):
    clf = student(callbacks=[Stop()]).fit(data.X, data.y_human, data.y_llm)
    assert [row["stage"] for row in clf.history_] == ["pretrain", "finetune"]


@pytest.mark.usefixtures("default_interrupts")
@pytest.mark.parametrize("inside", ["on_batch_end", "on_epoch_end", "on_grad_computed"])
def test_ctrl_c_stops_and_raises(data, inside):
    """Wherever it arrives: skorch's callbacks use the same exception to end a training."""
    assert threading.current_thread() is threading.main_thread()

    class CtrlC(Callback):
        pass

    setattr(CtrlC, inside, lambda self, net, *_, **__: os.kill(os.getpid(), signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    clf = student(callbacks=[CtrlC()])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(data.X, data.y_human, data.y_llm)
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(NotFittedError):
        clf.predict(data.X)


def test_score_skips_missing_labels(data):
    clf = student(max_epochs=5).fit(data.X, data.y_human, data.y_llm)
    known = pd.notna(pd.Series(data.y_human, dtype=object)).to_numpy()
    expected = accuracy_score(data.y_true[known], clf.predict(data.X)[known])
    assert clf.score(data.X, data.y_human) == expected
    with pytest.raises(ValueError, match="all of y is missing"):
        clf.score(data.X, [None] * len(data.X))
    with pytest.raises(ValueError, match="inconsistent"):
        clf.score(data.X, ["class_0"])


def test_long_dialogue_is_cut_into_segments():
    rng = np.random.RandomState(0)
    X = pd.DataFrame(rng.normal(size=(5000, 4)), columns=list("abcd")).assign(dialogue_id="d")
    y = np.where(X["a"] > 0, "yes", "no").astype(object)
    y_human = np.where(np.arange(5000) < 50, y, None)
    clf = student(max_epochs=2).fit(X, y_human, y)
    assert accuracy_score(list(y), clf.predict(X)) > 0.8


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss": "focal"}, "'loss' parameter"),
        ({"schedule": "never"}, "'schedule' parameter"),
        ({"smoothing": 0.5}, "'smoothing' parameter"),
        ({"context_turns": 2}, "needs text"),
        ({"classes": ["class_0"]}, "class"),
        ({"classes": ["class_0", "class_0"]}, "distinct"),
        ({"classes": ["class_0", "class_1"]}, "not among the classes"),
    ],
)
def test_bad_parameters(data, parameters, message):
    with pytest.raises(ValueError, match=message):
        student(**parameters).fit(data.X, data.y_human, data.y_llm)


def test_pair_loss_needs_dialogues(data):
    features = data.X.drop(columns="dialogue_id").to_numpy()
    with pytest.raises(ValueError, match="names no dialogues"):
        student(loss="noise_reduced").fit(features, data.y_human, data.y_llm)
    student(max_epochs=1).fit(features, data.y_human, data.y_llm)


def test_forward_corrected_needs_rows_with_both_labels(data):
    y_llm = np.asarray(data.y_llm, dtype=object).copy()
    y_llm[pd.notna(pd.Series(data.y_human, dtype=object))] = None
    with pytest.raises(ValueError, match="both"):
        student(loss="forward_corrected").fit(data.X, data.y_human, y_llm)


def test_predict_before_fit(data):
    with pytest.raises(NotFittedError):
        student().predict(data.X)


@pytest.mark.parametrize("size", [1e10, 1e30, 1e38, 1e300, np.inf])
def test_huge_features_are_answered_or_refused_but_never_nan(data, size):
    features = data.X.drop(columns="dialogue_id").to_numpy()
    clf, X = student(max_epochs=1).fit(features, data.y_human), features[:4]
    try:
        proba = clf.predict_proba(np.where(np.arange(4)[:, None] == 2, np.sign(X) * size, X))
    except ValueError as error:
        assert size >= 1e30
        assert re.search("row 2 has no finite logits|infinity", str(error))  # noqa: PT017
    else:
        assert np.isfinite(proba).all()


def test_a_row_too_far_outside_of_training_is_named(data):
    features = 1e-3 * data.X.drop(columns="dialogue_id").to_numpy()
    clf, X = student(max_epochs=1).fit(features, data.y_human), features[:4].copy()
    X[2] = 1e38
    with pytest.raises(ValueError, match=r"row 2 has no finite logits: its .* up to 1e\+38"):
        clf.predict(X)


def test_features_that_float32_cannot_standardise(data):
    X = data.X.drop(columns="dialogue_id").to_numpy(copy=True)
    X[:, 3] = np.where(X[:, 3] > 0, 3e38, 2e38)
    with pytest.raises(ValueError, match=r"feature 3 has values of up to 3e\+38.*rescale"):
        student(max_epochs=1).fit(X, data.y_human)


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-300])
def test_features_that_do_not_vary(data, size):
    X = size * data.X.drop(columns="dialogue_id").to_numpy()
    with pytest.warns(UserWarning, match="no feature of X varies by more than"):
        clf = student(max_epochs=1).fit(X, data.y_human)
    assert np.isfinite(clf.predict_proba(X)).all()


def test_features_of_another_width(data):
    clf = student(max_epochs=1).fit(data.X, data.y_human, data.y_llm)
    with pytest.raises(ValueError, match="feature"):
        clf.predict(data.X.drop(columns=data.X.columns[-1]))


def test_score_takes_the_columns_of_a_table_by_name():
    data = make_dialogues(n_dialogues=20, n_features=8, random_state=0)
    codes = np.unique(data.y_true, return_inverse=True)[1]
    Y = pd.DataFrame({"bad": (codes == 0).astype(int), "good": (codes == 1).astype(int)})
    clf = student(max_epochs=1).fit(data.X, Y)
    assert clf.score(data.X, Y[["good", "bad"]]) == clf.score(data.X, Y)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 0.0])
def test_score_refuses_weights_without_a_mean(weight):
    data = make_dialogues(n_dialogues=20, n_features=8, random_state=0)
    clf = student(max_epochs=1).fit(data.X, data.y_true)
    with pytest.raises(ValueError, match="sample_weight must be finite"):
        clf.score(data.X, data.y_true, sample_weight=[weight] * len(data.X))
