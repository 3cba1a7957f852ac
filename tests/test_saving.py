"""Fitted classifiers as folders: the same predictions, nothing of pickle, nothing damaged."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from signing import resign
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref.datasets import make_dialogues
from sklearn_dialpref.losses import hinge


def load(path, **options):
    return DialoguePreferenceClassifier.load(path, **options)


def agrees(clf, X, path):
    """Save, load in place, and compare all that predicting has."""
    clf.save(path)
    again = load(path)
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(again.predict(X), clf.predict(X))
    assert again.predict(X).dtype == clf.predict(X).dtype
    assert again.multilabel_ == clf.multilabel_ and again.classes_.dtype == clf.classes_.dtype
    assert [record["stage"] for record in again.history_] == [r["stage"] for r in clf.history_]
    return again


@pytest.mark.parametrize("trainable_layers", [0, 1, None])
@pytest.mark.parametrize("pooling", ["layers", "model"])
def test_text(tiny_encoder, chats, tmp_path, trainable_layers, pooling):
    clf = DialoguePreferenceClassifier(
        tiny_encoder,
        trainable_layers=trainable_layers,
        pooling=pooling,
        context_turns=1,
        max_epochs=1,
        random_state=0,
    )
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    again = agrees(clf, chats.X, tmp_path / "clf")
    assert again.get_params() == clf.get_params()
    refit = clone(again).fit(chats.X, chats.y_human, chats.y_llm)
    np.testing.assert_array_equal(refit.predict_proba(chats.X), clf.predict_proba(chats.X))


@pytest.mark.parametrize("trainable_layers", [0, None])
@pytest.mark.parametrize("as_object", [False, True])
def test_fewer_layers(tiny_encoder, chats, tmp_path, trainable_layers, as_object):
    encoder = SentenceTransformer(tiny_encoder, device="cpu") if as_object else tiny_encoder
    clf = DialoguePreferenceClassifier(
        encoder,
        trainable_layers=trainable_layers,
        encoder_layers=1,
        max_epochs=1,
        random_state=0,
    )
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    again = agrees(clf, chats.X, tmp_path / "clf")
    config = json.loads((tmp_path / "clf" / "encoder" / "config.json").read_text())
    assert config["num_hidden_layers"] == 1
    weights = load_file(tmp_path / "clf" / "encoder" / "model.safetensors")
    assert any("layer.0." in name for name in weights)
    assert not any("layer.1." in name for name in weights)
    assert again.encoder_layers == 1
    once_more = agrees(again, chats.X, tmp_path / "once more")
    refit = clone(once_more).fit(chats.X, chats.y_human, chats.y_llm)
    if not (as_object and trainable_layers is None):  # that one starts from the fine-tuned one
        np.testing.assert_allclose(
            refit.predict_proba(chats.X), clf.predict_proba(chats.X), atol=1e-5
        )
    refit.set_params(encoder_layers=2)
    if as_object:  # the saved one has only the layer that was kept
        with pytest.raises(ValueError, match="encoder_layers=2 but the encoder has 1 trans"):
            refit.fit(chats.X, chats.y_human)
    else:
        assert "layer.1." in str(
            list(refit.fit(chats.X, chats.y_human)._text_encoder.state_dict())
        )


def test_a_folder_from_before_encoders_could_be_cut(tiny_encoder, chats, tmp_path):
    clf = DialoguePreferenceClassifier(tiny_encoder, max_epochs=1, random_state=0)
    clf.fit(chats.X, chats.y_human).save(tmp_path / "clf")
    file = tmp_path / "clf" / "classifier.json"
    state = json.loads(file.read_text())
    assert state["parameters"].pop("encoder_layers", "none") is None
    file.write_text(json.dumps(state))
    resign(tmp_path / "clf")
    again = load(tmp_path / "clf")
    assert again.get_params() == clf.get_params()
    np.testing.assert_array_equal(again.predict_proba(chats.X), clf.predict_proba(chats.X))


def test_it_needs_nothing_outside_the_folder(tiny_encoder, chats, tmp_path):
    moved = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    clf = DialoguePreferenceClassifier(str(moved), max_epochs=1, random_state=0)
    clf.fit(chats.X, chats.y_human).save(tmp_path / "clf")
    expected = clf.predict_proba(chats.X)
    shutil.rmtree(moved)
    (tmp_path / "clf").rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(load(tmp_path / "elsewhere").predict_proba(chats.X), expected)


def test_static_embeddings_and_an_encoder_object(tiny_encoder, chats, tmp_path):
    tokenizer = SentenceTransformer(str(tiny_encoder), device="cpu").tokenizer
    static = StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=8)
    clf = DialoguePreferenceClassifier(
        SentenceTransformer(modules=[static], device="cpu"), max_epochs=1, random_state=0
    )
    again = agrees(clf.fit(chats.X, chats.y_human), chats.X, tmp_path / "clf")
    assert isinstance(again.encoder, SentenceTransformer)


@pytest.mark.parametrize("labels", [["no", "yes"], [3, 5], [0.0, 2.0], [False, True]])
def test_types_of_classes(labels, tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 2))
    y = np.array(labels * 10)
    clf = DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0)
    agrees(clf.fit(X, y), X, tmp_path / "clf")
    agrees(clf.fit(X, y.astype(object)), X, tmp_path / "clf")


def test_multilabel_features_by_name_and_speakers(tmp_path):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(40, 2)), columns=["a", "b"])
    X = X.assign(dialogue_id=np.arange(40) // 4, speaker=["agent", "customer"] * 20)
    y = pd.DataFrame(rng.random((40, 2)) < 0.4, columns=["offer", "ask"]).astype(float)
    y.loc[::2, "ask"] = 0.0
    of_speakers = {"agent": ["offer"]}
    clf = DialoguePreferenceClassifier(
        "precomputed", classes=of_speakers, class_weight={"offer": 2.0}, random_state=0
    )
    again = agrees(clf.fit(X, y), X, tmp_path / "clf")
    np.testing.assert_array_equal(again.thresholds_, clf.thresholds_)
    assert again.classes == of_speakers and again.class_weight == {"offer": 2.0}
    assert again.feature_names_in_.tolist() == ["a", "b"] and again.n_features_in_ == 2
    with pytest.raises(ValueError, match="feature names"):
        again.predict(X.rename(columns={"a": "c"}))


def test_what_json_does_not_have(tmp_path):
    X, y = np.random.default_rng(0).normal(size=(20, 2)), ["a", "b"] * 10

    def own_loss(logits, scores, pairs, **options):
        return logits.sum() * 0

    clf = DialoguePreferenceClassifier(
        "precomputed", loss=own_loss, random_state=np.random.RandomState(0), max_epochs=1
    )
    with pytest.warns(UserWarning, match=r"not saved.*\['loss', 'random_state'\]"):
        clf.fit(X, y).save(tmp_path / "clf")
    again = load(tmp_path / "clf")
    assert again.loss == "soft_cross_entropy" and again.random_state is None
    clf.set_params(loss=hinge, random_state=0).fit(X, y).save(tmp_path / "clf")
    assert load(tmp_path / "clf").loss == "hinge"
    day = pd.Timestamp("2026-01-01")
    clf.set_params(classes={day: ["a", "b"]}).fit(pd.DataFrame(X).assign(speaker=day), y)
    with pytest.raises(TypeError, match="cannot be saved: use strings or numbers"):
        clf.save(tmp_path / "days")
    assert not (tmp_path / "days").exists()


def test_the_card(saved):
    card = (saved / "README.md").read_text()
    for part in ("`no`, `so-so`, `yes`", "with a human label | 30", "test dialogues | 0.75"):
        assert part in card
    assert "| torch | " in card and "pretrain_finetune" in card


LEARNED = (
    "teacher_status_",
    "teacher_bias_",
    "teacher_bias_gain_",
    "human_weight_",
    "temperature_",
)


@pytest.fixture(scope="module")
def biased():
    return make_dialogues(
        60, n_features=4, class_bias=[0, 2.5, 0], human_fraction=0.3, random_state=0
    )


def cases(data):
    truth = np.stack([data.y_true == "class_0", data.y_true != "class_1"], axis=1).astype(float)
    shuffled = np.random.RandomState(1).permutation(np.asarray(data.y_llm))
    return {
        "corrected": (data.y_human, data.y_llm),
        "absent": (data.y_human, None),
        "alone": (None, data.y_llm),
        "left out": (data.y_human, shuffled),
        "multilabel": (truth, truth * 0.9),
    }


@pytest.mark.filterwarnings("ignore:the LLM's labels say nothing")
@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("corrected", "The LLM's leaning towards some classes was corrected first, which gained"),
        ("absent", "It learned from the human labels alone."),
        ("alone", "It learned from the LLM's labels alone."),
        ("left out", "The LLM's labels said nothing about the human ones. It learned from the"),
        ("multilabel", "of the way between the two it went"),
    ],
)
def test_what_the_human_labels_decided(biased, tmp_path, case, sentence):
    clf = DialoguePreferenceClassifier("precomputed", max_epochs=3, random_state=0)
    clf.fit(biased.X, *cases(biased)[case])
    copies = agrees(clf, biased.X, tmp_path / "clf"), pickle.loads(pickle.dumps(clf))
    for again in copies:
        for name in LEARNED:
            np.testing.assert_equal(getattr(again, name), getattr(clf, name))
    assert sentence in (tmp_path / "clf" / "README.md").read_text()


def test_a_folder_of_an_earlier_version(saved, copied):
    file = copied / "classifier.json"
    state = json.loads(file.read_text())
    del state["training"], state["parameters"]["pair_weight"]
    state["parameters"]["schedule"] = "two_rounds"
    file.write_text(json.dumps(state))
    resign(copied)
    with pytest.warns(UserWarning, match="'two_rounds' of an earlier version"):
        again = load(copied)
    assert again.get_params() == load(saved).get_params()
    assert [getattr(again, name) for name in LEARNED] == [None] * 5
    X = np.random.default_rng(1).normal(size=(9, 3))
    np.testing.assert_array_equal(again.predict_proba(X), load(saved).predict_proba(X))
    again.save(copied)  # no warning: it has the new schedule
    assert load(copied).schedule == "pretrain_finetune"
    again.fit(X, ["a", "b", "c"] * 3)


def test_no_pickle_and_private_files(saved):
    names = sorted(path.name for path in saved.iterdir())
    assert names == ["README.md", "classifier.json", "dialpref.json", "student.safetensors"]
    for path in saved.iterdir():
        assert not path.read_bytes().startswith(b"\x80")


def test_device(saved):
    assert load(saved).device == "auto" and load(saved, device="cpu").device == "cpu"
    with pytest.raises((RuntimeError, ValueError), match=r"(?i)device"):
        load(saved, device="no such device")


def test_not_fitted(tmp_path):
    with pytest.raises(NotFittedError):
        DialoguePreferenceClassifier().save(tmp_path / "clf")
    assert not (tmp_path / "clf").exists()


# -- atomic -----------------------------------------------------------------------------------


def test_a_failure_leaves_what_was_there(copied, monkeypatch):
    clf = load(copied)
    before = (copied / "dialpref.json").read_bytes()
    monkeypatch.setattr("sklearn_dialpref._persistence.folder._sha256", lambda file: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clf.save(copied)
    monkeypatch.undo()
    assert (copied / "dialpref.json").read_bytes() == before and load(copied)
    assert [path.name for path in copied.parent.iterdir()] == ["copy"]


def test_a_failure_of_the_last_step_puts_back_what_was_there(copied, monkeypatch):
    monkeypatch.setattr("sklearn_dialpref._persistence.replacing.exchange", lambda *paths: False)
    clf = load(copied)
    before = (copied / "dialpref.json").read_bytes()
    rename = Path.rename

    def failing(self, target):
        if self.name == "new":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        clf.save(copied)
    monkeypatch.undo()
    assert (copied / "dialpref.json").read_bytes() == before and load(copied)


def test_the_random_state_is_left_alone(copied):
    state = torch.random.get_rng_state()
    load(copied).save(copied)
    torch.testing.assert_close(torch.random.get_rng_state(), state)


def test_a_device_that_is_not_here(copied):
    X = np.random.default_rng(1).normal(size=(9, load(copied).n_features_in_))
    with pytest.warns(UserWarning, match="device='cuda' is not there"):
        again = load(copied, device="cuda")
    np.testing.assert_array_equal(again.predict(X), load(copied).predict(X))


def test_a_chat_template_of_the_tokenizer_comes_along(tiny_encoder, chats, tmp_path):
    model = SentenceTransformer(str(tiny_encoder), device="cpu")
    model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    clf = DialoguePreferenceClassifier(model, max_epochs=1, random_state=0)
    agrees(clf.fit(chats.X, chats.y_human), chats.X, tmp_path / "clf")


def test_a_saved_one_is_replaced_but_nothing_else(copied, tmp_path):
    clf = load(copied)
    (copied / "student.safetensors").write_bytes(b"damaged")
    clf.save(copied)
    assert load(copied)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "thesis", tmp_path / "file"):
        with pytest.raises(FileExistsError, match="is not a saved classifier"):
            clf.save(path)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "precious"
    clf.save(tmp_path / "new" / "folders" / "clf")
    assert load(tmp_path / "new" / "folders" / "clf")


@pytest.mark.slow
def test_in_another_process(saved):
    code = (
        "import sys; from sklearn_dialpref import DialoguePreferenceClassifier as C; "
        f"c = C.load({str(saved)!r}); print(c.predict([[0.0, 1.0, 2.0]])[0])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == load(saved).predict([[0.0, 1.0, 2.0]])[0]
    assert not found.stderr
