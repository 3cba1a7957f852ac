"""How stages train: which rows and settings count, and that odd labels leave the model usable."""

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed
from skorch.callbacks import Callback
from students import student

from sklearn_dialpref._training.calibration import level_shift
from sklearn_dialpref._training.device import seeded
from sklearn_dialpref.datasets import make_dialogues
from sklearn_dialpref.losses import forward_corrected, noise_reduced, soft_cross_entropy

SCHEDULES = ["pretrain_finetune", "joint", "distill_then_joint"]


@pytest.fixture(scope="module")
def data():
    return make_dialogues(n_dialogues=30, n_features=5, human_fraction=0.3, random_state=0)


def first_dialogues(X, n):
    return pd.factorize(X["dialogue_id"])[0] < n


def column(clf, X, name):
    return clf.predict_proba(X)[:, list(clf.classes_).index(name)]


# -- human labels beside LLM labels ---------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_human_labels_count_in_every_schedule(data, schedule):
    known = data.y_human.notna().to_numpy()
    turned = data.y_human.to_numpy(copy=True)
    turned[known] = np.roll(turned[known], 1)
    found = [
        student(schedule=schedule).fit(data.X, y_human, data.y_llm).predict_proba(data.X)
        for y_human in (data.y_human, turned)
    ]
    assert np.abs(found[0] - found[1]).max() > 0.02


@pytest.mark.parametrize("n_llm", [1, 20])
@pytest.mark.parametrize("schedule", ["joint", "distill_then_joint"])
def test_many_human_labels_are_used_beside_few_of_the_llm(schedule, n_llm):
    data = make_dialogues(n_dialogues=80, n_features=6, random_state=0)
    human, test = first_dialogues(data.X, 40), ~first_dialogues(data.X, 60)
    llm = first_dialogues(data.X, 40 + n_llm) & ~human
    y_human, y_llm = np.where(human, data.y_true, None), np.where(llm[:, None], data.y_llm, None)
    alone = student().fit(data.X, y_human)
    both = student(schedule=schedule).fit(data.X, y_human, y_llm)
    accuracy = [clf.score(data.X[test], data.y_true[test]) for clf in (alone, both)]
    assert accuracy[1] > accuracy[0] - 0.02


class HumanRows(Callback):
    """Counts the human-labelled rows of each step."""

    seen = []

    def on_batch_end(self, net, batch, training, **kwargs):
        if training:
            self.seen.append(len(batch[1]["human"]))


@pytest.mark.parametrize(("text", "rounds"), [(False, 20), (True, 6)])
def test_human_rows_come_round_in_a_joint_stage(data, tiny_encoder, text, rounds):
    X = data.X
    if text:
        X = pd.DataFrame({"dialogue_id": X["dialogue_id"], "text": data.y_true})
    HumanRows.seen.clear()
    encoder = tiny_encoder if text else "precomputed"
    clf = student(encoder=encoder, schedule="distill_then_joint", callbacks=[HumanRows()])
    clf.fit(X, data.y_true, data.y_llm)
    assert sum(HumanRows.seen) > 0.9 * rounds * len(X)  # a shuffled pass can be short


def test_an_epoch_of_a_joint_stage_covers_the_human_rows(data):
    few = np.where(first_dialogues(data.X, 1)[:, None], data.y_llm, None)
    HumanRows.seen.clear()
    clf = student(schedule="joint", max_epochs=1, callbacks=[HumanRows()])
    clf.fit(data.X, data.y_true, few)
    assert sum(HumanRows.seen) > 0.8 * len(data.X)


# -- classes that nobody, or only the LLM, has seen -----------------------------------------


@pytest.fixture(scope="module")
def rare():
    """A class in a fiftieth of the rows, which has no human label."""
    rng = np.random.RandomState(0)
    X = rng.normal(size=(900, 6))
    y = np.where(X[:, 0] > 1.9, "rare", np.where(X[:, 1] > 0, "a", "b"))
    human = (np.arange(900) < 120) & (y != "rare")
    X = pd.DataFrame(X, columns=list("pqrstu")).assign(dialogue_id=np.arange(900) // 10)
    return X, np.where(human, y, None), y


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_class_without_human_labels_keeps_the_level_of_the_llm(rare, schedule):
    X, y_human, y_llm = rare
    clf = student(loss="noise_reduced", schedule=schedule).fit(X, y_human, y_llm)
    assert column(clf, X, "rare").mean() == pytest.approx((y_llm == "rare").mean(), abs=0.01)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_class_that_nobody_knows_is_not_predicted(data, schedule):
    classes = ["class_0", "class_1", "class_2", "never"]
    clf = student(loss="noise_reduced", schedule=schedule, classes=classes)
    clf.fit(data.X, data.y_human, data.y_llm)
    assert column(clf, data.X, "never").mean() < 0.01
    assert "never" not in clf.predict(data.X)


@pytest.fixture
def labels(data):
    """Human entries of two labels in the first rows, and scores of both."""
    truth = np.stack([data.y_true == "class_0", data.y_true != "class_1"], axis=1).astype(float)
    y_human = np.where(np.arange(len(truth))[:, None] < 60, truth, np.nan)
    return y_human, truth.clip(0.1, 0.9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_label_that_only_humans_know(data, labels, schedule):
    y_human, scores = labels
    scores[:, 1] = np.nan
    clf = student(schedule=schedule).fit(data.X, y_human, scores)
    assert np.isfinite(clf.predict_proba(data.X)).all()
    assert (clf.predict(data.X) == y_human)[:60].mean() > 0.6


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_label_that_only_the_llm_knows(data, labels, schedule):
    y_human, scores = labels
    y_human[:, 1] = np.nan
    clf = student(schedule=schedule).fit(data.X, y_human, scores)
    wanted = scores[:, 1].mean()
    assert clf.predict_proba(data.X)[:, 1].mean() == pytest.approx(wanted, abs=0.03)


def test_a_label_that_nobody_knows(data, labels):
    y_human, scores = labels
    y_human[:, 1], scores[:, 1] = np.nan, np.nan
    names = ["greeting", "thanks"]
    with pytest.raises(ValueError, match=r"\['thanks'\] have neither a human label nor an LLM"):
        student(classes=names).fit(data.X, y_human, pd.DataFrame(scores, columns=names))


def test_forward_correction_of_a_label_without_human_entries(data, labels):
    y_human, scores = labels
    y_human[:, 1] = np.nan
    with pytest.raises(ValueError, match="no such row for the label '1'"):
        student(loss="forward_corrected").fit(data.X, y_human, scores)


def test_batches_of_classes_without_weight(data):
    weight = {"class_0": 0.0, "class_2": 0.0}
    clf = student(class_weight=weight, batch_size=8, max_epochs=2)
    clf.fit(data.X, data.y_human, data.y_llm)
    assert np.isfinite(clf.predict_proba(data.X)).all()
    assert np.isfinite([row["train_loss"] for row in clf.history_]).all()


# -- settings reach the loss ----------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_pairs_stay_within_a_dialogue_and_settings_reach_the_loss(data, schedule):
    """Each dialogue has a score of its own: pairs within it tie."""
    share = pd.factorize(data.X["dialogue_id"])[0] / 50
    gaps, settings = [], []

    def spy(logits, scores, pairs, **options):
        i, j = pairs
        gaps.extend((scores[i, 0] - scores[j, 0]).tolist())
        settings.append({name: options[name] for name in wanted})
        return noise_reduced(logits, scores, pairs, **options)

    y_human = np.where(data.y_human == "class_2", None, data.y_human)
    y_human[np.flatnonzero(pd.notna(y_human))[15:]] = None  # too few to call the scores useless
    wanted = {"margin_scale": 3.0, "min_gap": 0.1, "smoothing": 0.2}
    student(loss=spy, schedule=schedule, max_epochs=1, **wanted).fit(
        data.X, y_human, np.column_stack([share, 1 - share])
    )
    assert len(gaps) > len(data.X)
    assert set(gaps) == {0.0}
    assert all(found == wanted for found in settings)


def test_loss_weight_weighs_the_teacher_in_a_joint_stage(data):
    turned = np.roll(data.y_llm, 1, axis=0)

    def difference(weight):
        clf = student(
            schedule="joint", loss="soft_cross_entropy", loss_weight=weight, max_epochs=3
        )
        found = [
            clf.fit(data.X, data.y_human, y_llm).predict_proba(data.X)
            for y_llm in (data.y_llm, turned)
        ]
        return np.abs(found[0] - found[1]).max()

    assert difference(0.0) == 0
    assert difference(1.0) > 0.01


@pytest.mark.parametrize("name", ["forward_corrected", "soft_cross_entropy", "noise_reduced"])
def test_a_function_of_losses_is_its_name(data, name):
    function = {
        "forward_corrected": forward_corrected,
        "soft_cross_entropy": soft_cross_entropy,
        "noise_reduced": noise_reduced,
    }[name]
    found = [
        student(loss=loss, max_epochs=3)
        .fit(data.X, data.y_human, data.y_llm)
        .predict_proba(data.X)
        for loss in (name, function)
    ]
    np.testing.assert_array_equal(*found)


def test_a_function_on_pairs_needs_dialogues(data):
    features = data.X.drop(columns="dialogue_id").to_numpy()
    with pytest.raises(ValueError, match="'noise_reduced' compares"):
        student(loss=noise_reduced).fit(features, data.y_human, data.y_llm)


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 2}])
def test_small_batches_still_hold_pairs(data, settings):
    n_pairs = []

    def spy(logits, scores, pairs, **options):
        n_pairs.append(pairs.shape[1])
        return noise_reduced(logits, scores, pairs, **options)

    student(loss=spy, schedule="joint", max_epochs=1, **settings).fit(
        data.X, data.y_human, data.y_llm
    )
    assert min(n_pairs) >= 1


# -- which rows count -----------------------------------------------------------------------


def without_labels(data, rows):
    y_human, y_llm = data.y_human.to_numpy(copy=True), data.y_llm.astype(object)
    y_human[rows], y_llm[rows] = None, None
    return y_human, y_llm


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("text", [False, True])
def test_rows_without_any_label_change_nothing(data, tiny_encoder, text, early_stopping):
    X, encoder = data.X, "precomputed"
    without = first_dialogues(X, 6)
    y_human, y_llm = without_labels(data, without)
    if text:
        words = np.where(without, "refund parcel late", data.y_true)
        X, encoder = pd.DataFrame({"dialogue_id": X["dialogue_id"], "text": words}), tiny_encoder
    clf = student(encoder=encoder, max_epochs=1, early_stopping=early_stopping)
    found = clf.fit(X, y_human, y_llm).predict_proba(X)
    expected = clf.fit(X[~without], y_human[~without], y_llm[~without]).predict_proba(X)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("kind", ["normal", "binary", "counts", "one-hot"])
def test_order_of_rows_without_dialogues(data, kind, early_stopping):
    X = data.X.drop(columns="dialogue_id").to_numpy()
    if kind == "binary":
        X = (X > 0).astype(float)
    elif kind == "counts":
        X = np.exp(X).astype(int)
    elif kind == "one-hot":
        X = np.eye(len(X))
    order = np.random.RandomState(1).permutation(len(X))
    clf = student(loss="soft_cross_entropy", max_epochs=3, early_stopping=early_stopping)
    y_human, y_llm = data.y_human.to_numpy(), data.y_llm
    found = [
        clf.fit(X[rows], y_human[rows], y_llm[rows]).predict_proba(X)
        for rows in (np.arange(len(X)), order)
    ]
    np.testing.assert_array_equal(*found)


def test_order_of_texts_without_dialogues(data, tiny_encoder):
    texts = np.array([" ".join(word) for word in data.y_true + data.X["dialogue_id"]], object)
    order = np.random.RandomState(1).permutation(len(texts))
    clf = student(
        encoder=tiny_encoder,
        trainable_layers=0,
        loss="soft_cross_entropy",
        early_stopping=True,
        max_epochs=3,
    )
    y_human, y_llm = data.y_human.to_numpy(), data.y_llm
    found = [
        clf.fit(texts[rows], y_human[rows], y_llm[rows]).predict_proba(texts)
        for rows in (np.arange(len(texts)), order)
    ]
    np.testing.assert_array_equal(*found)


# -- early stopping and callbacks -----------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_early_stopping_with_one_human_labelled_dialogue(data, schedule):
    y_human = np.where(first_dialogues(data.X, 1), data.y_true, None)
    with pytest.raises(ValueError, match="all rows with its labels are held out"):
        student(schedule=schedule, early_stopping=True).fit(data.X, y_human, data.y_llm)


class Validation(Callback):
    """Loss on the held-out rows with the weights that training left."""

    at_end = [None]

    def on_train_end(self, net, X, **kwargs):
        losses, sizes = [], []
        for inputs, target in net.get_split_datasets(X)[1]:
            logits = net.evaluation_step((inputs, None), training=False)
            losses.append(net.criterion_(logits, target).item())
            sizes.append(len(logits))
        self.at_end[0] = np.average(losses, weights=sizes)


def test_early_stopping_returns_to_the_best_weights_of_a_stage(data):
    clf = student(
        schedule="joint",
        loss="soft_cross_entropy",
        early_stopping=True,
        validation_fraction=0.3,
        learning_rate=0.05,
        max_epochs=60,
        callbacks=[Validation()],
    )
    clf.fit(data.X, data.y_human, data.y_llm)
    losses = pd.DataFrame(clf.history_)["valid_loss"]
    assert losses.idxmin() < len(losses) - 1
    assert Validation.at_end[0] == pytest.approx(losses.min())


class StopAt(Callback):
    """End a stage where it begins or ends."""

    def __init__(self, event):
        self.event = event

    def on_train_begin(self, net, **kwargs):
        self._stop("on_train_begin")

    def on_train_end(self, net, **kwargs):
        self._stop("on_train_end")

    def _stop(self, event):
        if event == self.event:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("event", "n_epochs"), [("on_train_begin", 0), ("on_train_end", 4)])
def test_a_callback_can_end_a_stage_at_its_edges(data, event, n_epochs):
    clf = student(callbacks=[StopAt(event)], max_epochs=2)
    clf.fit(data.X, data.y_human, data.y_llm)
    assert len(clf.history_) == n_epochs
    assert np.isfinite(clf.predict_proba(data.X)).all()


# -- numbers that leave the floats ----------------------------------------------------------


@pytest.mark.parametrize("rate", [1e10, 1e30, 1e300])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_learning_rate_that_explodes(data, schedule, rate):
    clf = student(schedule=schedule, learning_rate=rate, max_epochs=3)
    with pytest.raises(
        ValueError, match=r"became (NaN|infinite) in epoch \d of stage .*lower lea"
    ):
        clf.fit(data.X, data.y_human, data.y_llm)
    assert not hasattr(clf, "classes_")


def test_a_loss_that_is_nan_says_where(data):
    epochs = []

    class Count(Callback):
        def on_epoch_begin(self, net, **kwargs):
            epochs.append(len(net.history))

    def nan_in_the_third_epoch(logits, scores, pairs, **options):
        return logits.sum() * (float("nan") if len(epochs) >= 3 else 1e-6)

    clf = student(loss=nan_in_the_third_epoch, callbacks=[Count()], max_epochs=5)
    with pytest.raises(ValueError, match="the loss became NaN in epoch 3 of stage 'pretrain'"):
        clf.fit(data.X, None, data.y_llm)


def test_the_last_step_can_be_one_too_far(data):
    class Last(Callback):
        def on_train_end(self, net, **kwargs):
            net.module_.head.output.bias.data[0] = float("inf")

    with pytest.raises(ValueError, match="the weights became infinite in epoch 1 of stage"):
        student(callbacks=[Last()], max_epochs=1).fit(data.X, None, data.y_llm)


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_level_of_a_class_that_nobody_gives_any_chance_is_finite(multilabel):
    logits = torch.tensor([[900.0, 100.0], [800.0, 50.0]], dtype=torch.float64)
    shift = level_shift(
        logits, torch.full((2, 2), 0.5).double(), multilabel, torch.tensor([True] * 2)
    )
    assert shift.isfinite().all()


# -- random state ---------------------------------------------------------------------------


def test_fits_in_threads_are_those_of_a_loop(data):
    def fit(seed):
        clf = student(random_state=seed, max_epochs=4)
        return clf.fit(data.X, data.y_human, data.y_llm).predict_proba(data.X)

    before = torch.get_rng_state()
    expected = [fit(seed) for seed in range(4)]
    found = Parallel(n_jobs=4, backend="threading")(delayed(fit)(seed) for seed in range(4))
    np.testing.assert_array_equal(found, expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeding_the_cpu_leaves_gpus_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", calls.append)
    with seeded(0, "cpu"):
        first = torch.rand(3)
    with seeded(0, "cpu"):
        torch.testing.assert_close(torch.rand(3), first, rtol=0, atol=0)
    assert calls == []
