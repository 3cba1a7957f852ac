"""Pickles of fitted classifiers, by pickle, joblib and skops: the same predictions anywhere."""

import copy
import pickle
import shutil

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref._persistence.saving import _available_device
from sklearn_dialpref._student.encoders import TextEncoder


@pytest.fixture(scope="module")
def fitted(tiny_encoder, chats):
    clf = DialoguePreferenceClassifier(tiny_encoder, max_epochs=1, random_state=0)
    return clf.fit(chats.X, chats.y_human, chats.y_llm)


def by_pickle(clf, tmp_path):
    return pickle.loads(pickle.dumps(clf))


def by_joblib(clf, tmp_path):
    joblib.dump(clf, tmp_path / "clf.joblib")
    return joblib.load(tmp_path / "clf.joblib")


def by_skops(clf, tmp_path):
    skops = pytest.importorskip("skops.io")
    content = skops.dumps(clf)
    ours = skops.get_untrusted_types(data=content)
    assert all(name.startswith(("sklearn_dialpref.", "sklearn.")) for name in ours)
    return skops.loads(content, trusted=ours)


def same(again, clf, X):
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(again.predict(X), clf.predict(X))
    assert again.predict(X).dtype == clf.predict(X).dtype


@pytest.mark.parametrize(
    ("way", "options"),
    [
        *((way, {}) for way in (by_pickle, by_joblib, by_skops)),
        *(
            pytest.param(way, options, marks=[] if way is by_pickle else pytest.mark.slow)
            for way in (by_pickle, by_joblib, by_skops)
            for options in (
                {"context_turns": 1},
                {"trainable_layers": None},
                {"encoder_layers": 1},
                {"encoder_layers": 1, "trainable_layers": None},
            )
        ),
    ],
)
def test_ways_of_pickling(tiny_encoder, chats, tmp_path, way, options):
    clf = DialoguePreferenceClassifier(
        str(tiny_encoder), max_epochs=1, random_state=0, **options
    ).fit(chats.X, chats.y_human, chats.y_llm)
    again = way(clf, tmp_path)
    same(again, clf, chats.X)
    assert again.get_params() == clf.get_params()
    assert pd.DataFrame(again.history_).equals(pd.DataFrame(clf.history_))
    refitted = clone(again).fit(chats.X, chats.y_human, chats.y_llm)
    same(refitted, clf, chats.X)
    again.save(tmp_path / "folder")
    same(DialoguePreferenceClassifier.load(tmp_path / "folder"), clf, chats.X)


@pytest.mark.parametrize("way", [by_pickle, by_joblib, by_skops])
def test_pickling_with_others_around_it(tmp_path, way):
    X, y = np.random.default_rng(0).normal(size=(40, 3)), ["no", "yes"] * 20
    clf = DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0)
    assert way(clf, tmp_path).get_params() == clf.get_params()
    pipeline = make_pipeline(StandardScaler(), clf)
    search = GridSearchCV(pipeline, {f"{pipeline.steps[-1][0]}__loss_weight": [1, 2]}, cv=2)
    same(way(search.fit(X, y), tmp_path), search, X)


def test_pickling_an_encoder_that_is_an_object(tiny_encoder, chats):
    model = SentenceTransformer(str(tiny_encoder), device="cpu")
    clf = DialoguePreferenceClassifier(model, max_epochs=1, random_state=0)
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    again = pickle.loads(pickle.dumps(clf))
    same(again, clf, chats.X)
    same(clone(again).fit(chats.X, chats.y_human, chats.y_llm), clf, chats.X)


def test_a_pickle_needs_no_folder_of_an_encoder(tiny_encoder, chats, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    clf = DialoguePreferenceClassifier(str(folder), max_epochs=1, random_state=0)
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    content, expected = pickle.dumps(clf), clf.predict_proba(chats.X)
    shutil.rmtree(folder)
    np.testing.assert_array_equal(pickle.loads(content).predict_proba(chats.X), expected)


@pytest.mark.parametrize("device", ["cuda", "cuda:9"])
@pytest.mark.parametrize("trainable_layers", [0, None])
def test_a_pickle_of_a_device_that_is_not_here(tiny_encoder, chats, trainable_layers, device):
    clf = DialoguePreferenceClassifier(
        tiny_encoder, trainable_layers=trainable_layers, max_epochs=1, random_state=0
    ).fit(chats.X, chats.y_human, chats.y_llm)
    clf.device = device
    content = pickle.dumps(clf)
    with pytest.warns(UserWarning, match=f"device='{device}' is not there"):
        again = pickle.loads(content)
    same(again, clf, chats.X)
    assert again.device == device


def test_a_gpu_by_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert [_available_device(device) for device in ("cuda", "cuda:0")] == ["cuda", "cuda:0"]
    with pytest.warns(UserWarning, match="device='cuda:1' is not there"):
        assert _available_device("cuda:1") == "cpu"


def test_what_was_encoded_is_not_encoded_again(fitted, chats, monkeypatch):
    content = pickle.dumps(fitted)
    expected = fitted.predict_proba(chats.X)

    def refuse(self, texts, verbose=False):
        raise AssertionError(f"{len(texts)} texts are encoded again")

    monkeypatch.setattr(TextEncoder, "embed", refuse)
    for _ in range(2):
        np.testing.assert_array_equal(pickle.loads(content).predict_proba(chats.X), expected)


def test_classifiers_of_one_encoder_share_it(fitted, tiny_encoder, chats):
    other = clone(fitted).fit(chats.X, chats.y_human)
    both, alone = len(pickle.dumps([fitted, other])), len(pickle.dumps(fitted))
    encoder = len(pickle.dumps(fitted._frozen))
    assert both < 2 * alone - 0.9 * encoder
    first, second = pickle.loads(pickle.dumps([fitted, other]))
    assert first._text_encoder is second._text_encoder


@pytest.mark.parametrize("changed", [{"pooling": "model"}, {"trainable_layers": 2}])
def test_parameters_that_were_changed_since_fit(fitted, chats, changed):
    clf = copy.deepcopy(fitted).set_params(**changed)
    same(pickle.loads(pickle.dumps(clf)), fitted, chats.X)


class Doubled(torch.nn.Module):
    def forward(self, features):
        features["sentence_embedding"] = 2 * features["sentence_embedding"]
        return features


def test_an_encoder_of_other_modules(tiny_encoder, chats):
    model = SentenceTransformer(
        modules=[*SentenceTransformer(tiny_encoder, device="cpu"), Doubled()], device="cpu"
    )
    clf = DialoguePreferenceClassifier(model, max_epochs=1, random_state=0)
    clf.fit(chats.X, chats.y_human, chats.y_llm)
    same(pickle.loads(pickle.dumps(clf)), clf, chats.X)


@pytest.mark.parametrize("name", ["../outside.json", "{folder}/outside.json", "a.pkl"])
def test_a_pickled_encoder_writes_nowhere_else(fitted, tmp_path, name):
    name = name.format(folder=tmp_path)
    content = fitted._text_encoder.__getstate__()
    content["files"] = {**content["files"], name: b"{}"}
    with pytest.raises(ValueError, match="pickled encoder names the file"):
        TextEncoder.__new__(TextEncoder).__setstate__(content)
    assert not list(tmp_path.rglob("outside*"))
