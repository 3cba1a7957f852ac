"""A classifier with context_turns that is asked about parts of dialogues."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold, cross_val_predict
from students import student

from sklearn_dialpref import DialoguePreferenceClassifier, LabelledGroupKFold, with_context
from sklearn_dialpref._training.cut_context import turn_summary, warn_of_cut_context
from sklearn_dialpref.datasets import make_dialogues

MESSAGE = "dialogues begin or break in the middle"


@pytest.fixture(scope="module")
def chats():
    return make_dialogues(n_dialogues=12, n_turns=(4, 6), random_state=0)


@pytest.fixture(scope="module")
def clf(tiny_encoder, chats):
    return student(tiny_encoder, context_turns=1, max_epochs=1).fit(chats.X, chats.y_true)


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
def test_cut_dialogues_are_noticed_once(clf, chats, kind, method):
    (warning,) = cut_warnings(lambda: getattr(clf, method)(parts(chats.X)[kind]))
    assert issubclass(warning.category, UserWarning)
    assert "context_turns=1" in str(warning.message) and "with_context" in str(warning.message)
    assert warning.filename == __file__


def test_whole_dialogues_are_not(clf, chats):
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
    ):
        assert not cut_warnings(lambda X=X: clf.predict(X))


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
    group = pd.factorize(X["dialogue_id"])[0]
    for train, test in KFold(n_splits, shuffle=True, random_state=0).split(X):
        summary = {"utterances": len(train), **turn_summary(X.iloc[train], group[train])}
        asked = (X.iloc[test], group[test], summary, 1)
        assert cut_warnings(lambda asked=asked: warn_of_cut_context(*asked))


def test_a_loaded_classifier_notices_as_well(clf, chats, tmp_path):
    clf.save(tmp_path / "clf")
    loaded = DialoguePreferenceClassifier.load(tmp_path / "clf")
    assert loaded.data_summary_ == clf.data_summary_
    assert not cut_warnings(lambda: loaded.predict(chats.X))
    assert cut_warnings(lambda: loaded.predict(chats.X[::2]))
    del loaded.data_summary_["without the turn before"]  # a folder of an earlier version
    assert not cut_warnings(lambda: loaded.predict(chats.X[::2]))
