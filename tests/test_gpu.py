"""On a GPU: it learns, predicts, and leaves it again; skipped where there is none."""

import pickle

import numpy as np
import pytest

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref._student.encoders import load_encoder
from sklearn_dialpref._student.frozen import _STORES
from sklearn_dialpref.serving import DialogueStream, OnnxDialogueClassifier, export_onnx

pytestmark = pytest.mark.usefixtures("gpu")


def fit(encoder, chats, device, **options):
    options = {"max_epochs": 1, "device": device, "random_state": 0, **options}
    clf = DialoguePreferenceClassifier(encoder, **options)
    return clf.fit(chats.X, chats.y_human, chats.y_llm)


@pytest.mark.parametrize("schedule", ["pretrain_finetune", "joint"])
@pytest.mark.parametrize("with_llm", [True, False])
def test_multilabel_thresholds(gpu, schedule, with_llm):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5))
    y = (X[:, :2] > 0.5).astype(float)
    clf = DialoguePreferenceClassifier(
        "precomputed", schedule=schedule, max_epochs=2, device=gpu, random_state=0
    )
    assert np.isfinite(clf.fit(X, y, y if with_llm else None).thresholds_).all()


def devices(clf):
    return {weight.device.type for weight in clf.net_.module_.parameters()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"trainable_layers": None},
        {"trainable_layers": 1, "context_turns": 2, "schedule": "pretrain_finetune"},
        {"loss": "noise_reduced"},
        {"loss": "ranknet", "schedule": "joint", "trainable_layers": None},
        {"loss": "forward_corrected", "class_weight": "balanced"},
        {"schedule": "distill_then_joint", "early_stopping": True, "validation_fraction": 0.3},
    ],
)
def test_it_learns(tiny_encoder, chats, gpu, options):
    clf = fit(tiny_encoder, chats, gpu, max_epochs="auto", **options)
    assert devices(clf) == {gpu}
    proba = clf.predict_proba(chats.X)
    assert np.isfinite(proba).all() and (proba.std(axis=0) > 0).all()


@pytest.mark.parametrize("trainable_layers", [0, None])
def test_labels_and_speakers(tiny_encoder, chats, gpu, trainable_layers):
    names = sorted(set(chats.y_true))
    human = np.stack([chats.y_true == name for name in names], axis=1).astype(float)
    X = chats.X.assign(speaker=np.resize(["agent", "customer"], len(chats.X)))
    human[X["speaker"] == "agent", 1:] = 0
    scores = np.abs(human - 0.2)
    human[::3] = np.nan
    clf = DialoguePreferenceClassifier(
        tiny_encoder,
        trainable_layers=trainable_layers,
        classes={"agent": [0]},
        device=gpu,
        random_state=0,
    ).fit(X, human, scores)
    proba = clf.predict_proba(X)
    assert np.isfinite(proba).all() and np.isfinite(clf.thresholds_).all()
    assert (proba[X["speaker"] == "agent", 1:] == 0).all()


def test_a_frozen_encoder_gives_the_same_model_again(tiny_encoder, chats, gpu):
    first, second = (fit(tiny_encoder, chats, gpu).predict_proba(chats.X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_what_one_device_encoded_is_not_another_s(tiny_encoder, chats, gpu):
    clf = fit(tiny_encoder, chats, gpu)
    before = set(_STORES)
    on_processor = fit(tiny_encoder, chats, "cpu")
    assert set(_STORES) - before
    assert clf._frozen.text_encoder.device.type == gpu
    assert on_processor._frozen.text_encoder.device.type == "cpu"


@pytest.mark.parametrize("trainable_layers", [0, None])
def test_to_the_processor_and_back(tiny_encoder, chats, gpu, tmp_path, trainable_layers):
    clf = fit(tiny_encoder, chats, gpu, trainable_layers=trainable_layers)
    expected = clf.predict_proba(chats.X)
    clf.device = "cpu"
    moved = pickle.loads(pickle.dumps(clf))
    assert devices(moved) == {"cpu"}
    np.testing.assert_allclose(moved.predict_proba(chats.X), expected, atol=1e-3)
    moved.save(tmp_path / "clf")
    again = DialoguePreferenceClassifier.load(tmp_path / "clf", device=gpu)
    assert devices(again) == {gpu}
    np.testing.assert_allclose(again.predict_proba(chats.X), expected, atol=1e-3)


def test_an_encoder_that_is_an_object_is_pickled_without_the_gpu(tiny_encoder, chats, gpu):
    model = load_encoder(tiny_encoder).to(gpu)
    content = pickle.dumps(fit(model, chats, gpu))
    assert model.device.type == gpu
    assert pickle.loads(content).encoder.device.type == "cpu"


@pytest.mark.parametrize("trainable_layers", [0, None])
def test_streams_and_graphs(tiny_encoder, chats, gpu, tmp_path, trainable_layers):
    clf = fit(tiny_encoder, chats, gpu, trainable_layers=trainable_layers)
    expected = clf.predict_proba(chats.X)
    assert DialogueStream(clf).push(chats.X["text"][0]).label == clf.predict(chats.X)[0]
    export_onnx(clf, tmp_path / "graph", X_check=chats.X, precision="float32")
    served = OnnxDialogueClassifier.load(tmp_path / "graph")
    np.testing.assert_allclose(served.predict_proba(chats.X), expected, atol=1e-4)
    assert devices(clf) == {gpu}
