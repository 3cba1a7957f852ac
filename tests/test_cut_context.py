"""A classifier with context_turns that is asked about parts of dialogues."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from signing import resign
from sklearn.model_selection import KFold, cross_val_predict
from students import student

from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    LabelledGroupKFold,
    OnnxDialogueClassifier,
    export_onnx,
    with_context,
)
from sklearn_dialpref._dialogues.cut_context import turn_summary, warn_of_cut_context
from sklearn_dialpref._dialogues.validation import check_dialogues
from sklearn_dialpref.datasets import make_dialogues

MESSAGE = "dialogues begin or break in the middle"
OF_AN_EARLIER_VERSION = Path(__file__).parent / "stored" / "format_1_onnx_int8"


@pytest.fixture(scope="module")
def chats():
    return make_dialogues(n_dialogues=12, n_turns=(4, 6), random_state=0)


@pytest.fixture(scope="module")
def clf(tiny_encoder, chats):
    return student(tiny_encoder, context_turns=1, max_epochs=1).fit(chats.X, chats.y_true)


@pytest.fixture(scope="module")
def folder(clf, chats, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "onnx"
    export_onnx(clf, path, X_check=chats.X)
    return path


@pytest.fixture(scope="module")
def served(folder):
    return OnnxDialogueClassifier.load(folder, threads=1)


def cut_warnings(ask):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ask()
    return [warning for warning in caught if MESSAGE in str(warning.message)]


def parts(X):
    """Rows that lack what stands before them, by the kind of cut."""
    turn = X["turn"]
    return {
        "a turn is missing": X[turn != 1],
        "the beginning is missing": X[turn > 0],
        "one dialogue is broken": X.drop(index=X.index[turn == 2][:1]),
        "one row alone": X[turn == 2][:1],
        "split by row": X.sample(frac=0.5, random_state=0),
    }


@pytest.mark.parametrize("kind", parts(pd.DataFrame({"turn": [0, 1, 2]})))
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize("model", ["clf", "served"])
def test_cut_dialogues_are_noticed_once(request, chats, kind, method, model):
    ask = getattr(request.getfixturevalue(model), method)
    (warning,) = cut_warnings(lambda: ask(parts(chats.X)[kind]))
    assert issubclass(warning.category, UserWarning)
    assert "context_turns=1" in str(warning.message) and "with_context" in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.parametrize("model", ["clf", "served"])
def test_whole_dialogues_are_not(request, chats, model):
    model = request.getfixturevalue(model)
    whole = chats.X["dialogue_id"].isin(chats.X["dialogue_id"].unique()[3:5])
    for X in (
        chats.X,
        chats.X.sample(frac=1.0, random_state=0),
        chats.X[whole],
        chats.X[chats.X["turn"] < 2],  # not over yet
        chats.X[chats.X["turn"] == 0],
        chats.X.drop(columns="turn"),
        chats.X.drop(columns="turn").iloc[::2],  # nothing tells
        chats.X["text"].tolist(),
        chats.X["text"].tolist()[:1],
    ):
        assert not cut_warnings(lambda X=X: model.predict(X))


def test_gaps_that_training_has_too_are_not(tiny_encoder, chats):
    some = student(tiny_encoder, context_turns=1, max_epochs=1)
    every_other = chats.X.assign(turn=2 * chats.X["turn"])
    times = chats.X.assign(turn=pd.Timestamp("2026-01-01") + chats.X["turn"] * pd.Timedelta("9s"))
    through = chats.X.assign(turn=np.arange(len(chats.X)))
    for X in (every_other, times, through):
        some.fit(X, chats.y_true)
        dialogue = X["dialogue_id"] == X["dialogue_id"].iloc[-1]
        beginnings = X[X.groupby("dialogue_id").cumcount() < 2]
        for asked in (X, X[dialogue], X[dialogue][:2], beginnings):
            assert not cut_warnings(lambda asked=asked: some.predict(asked))
    assert cut_warnings(lambda: some.fit(through, chats.y_true).predict(through[::2]))


def test_numbering_from_one_and_as_text_or_floats(tiny_encoder, chats):
    for turn in (chats.X["turn"] + 1, chats.X["turn"].astype(str), chats.X["turn"] + 0.0):
        X = chats.X.assign(turn=turn)
        some = student(tiny_encoder, context_turns=2, max_epochs=1).fit(X, chats.y_true)
        assert not cut_warnings(lambda X=X, some=some: some.predict(X))
        assert cut_warnings(lambda X=X, some=some: some.predict(X[chats.X["turn"] > 0]))


def test_turns_beyond_floats_tell_nothing(tiny_encoder, chats):
    turns = pd.Series([10**400 + turn for turn in chats.X["turn"]], chats.X.index, dtype=object)
    X = chats.X.assign(turn=turns)
    some = student(tiny_encoder, context_turns=1, max_epochs=1).fit(X, chats.y_true)
    assert not cut_warnings(lambda: some.predict(X[::2]))


def test_nothing_is_said_without_context_turns(tiny_encoder, chats):
    X = with_context(chats.X, turns=1)
    column = student(tiny_encoder, max_epochs=1).fit(X, chats.y_true)
    assert not cut_warnings(lambda: column.predict(X[::2]))
    plain = student(tiny_encoder, max_epochs=1).fit(chats.X, chats.y_true)
    assert not cut_warnings(lambda: plain.predict(chats.X[::2]))
    assert "first turn" not in plain.data_summary_


def test_folds_of_rows_and_of_dialogues(tiny_encoder, chats):
    some = student(tiny_encoder, context_turns=1, max_epochs=1)
    by_row, whole = KFold(3, shuffle=True, random_state=0), LabelledGroupKFold(3)
    assert cut_warnings(lambda: cross_val_predict(some, chats.X, chats.y_true, cv=by_row))
    assert not cut_warnings(lambda: cross_val_predict(some, chats.X, chats.y_true, cv=whole))


@pytest.mark.parametrize("n_splits", [3, 5, 10])
@pytest.mark.parametrize("n_dialogues", [20, 80])
def test_each_fold_of_rows_is_noticed(n_splits, n_dialogues):
    X = make_dialogues(n_dialogues, n_turns=(4, 9), random_state=1).X
    for rows, asked in KFold(n_splits, shuffle=True, random_state=0).split(X):
        train, test = check_dialogues(X.iloc[rows]), check_dialogues(X.iloc[asked])
        summary = {"utterances": len(train), **turn_summary(train)}
        assert cut_warnings(
            lambda test=test, summary=summary: warn_of_cut_context(test, summary, 1)
        )


def test_a_loaded_classifier_notices_as_well(clf, chats, tmp_path):
    clf.save(tmp_path / "clf")
    loaded = DialoguePreferenceClassifier.load(tmp_path / "clf")
    assert loaded.data_summary_ == clf.data_summary_
    assert not cut_warnings(lambda: loaded.predict(chats.X))
    assert cut_warnings(lambda: loaded.predict(chats.X[::2]))
    del loaded.data_summary_["without the turn before"]  # a folder of an earlier version
    assert not cut_warnings(lambda: loaded.predict(chats.X[::2]))


def test_an_export_checked_on_parts_says_it_once(clf, chats, tmp_path):
    assert len(cut_warnings(lambda: export_onnx(clf, tmp_path / "a", X_check=chats.X[::2]))) == 1


def test_an_export_of_an_earlier_version_knows_nothing_of_turns(chats):
    served = OnnxDialogueClassifier.load(OF_AN_EARLIER_VERSION)
    assert served.context_turns
    assert not cut_warnings(lambda: served.predict(chats.X[::2]))


LIES = [
    {"utterances": 0},
    {"utterances": 1.5},
    {"without the turn before": -1},
    {"without the turn before": 10**6},
    {"first turn": "0"},
    {"first turn": 10**400},
    {"first turn": True},
]


@pytest.mark.parametrize("lie", [*LIES, [], "a", None], ids=str)
def test_lies_about_turns_are_refused(clf, folder, tmp_path, lie):
    clf.save(tmp_path / "clf")
    shutil.copytree(folder, tmp_path / "onnx")
    for cls, name, key in (
        (DialoguePreferenceClassifier, "clf/classifier.json", "data"),
        (OnnxDialogueClassifier, "onnx/serving.json", "turns"),
    ):
        file = tmp_path / name
        state = json.loads(file.read_text())
        state[key] = {**state[key], **lie} if isinstance(lie, dict) else lie
        file.write_text(json.dumps(state))
        resign(file.parent)
        with pytest.raises(ValueError, match=file.name):
            cls.load(file.parent)
