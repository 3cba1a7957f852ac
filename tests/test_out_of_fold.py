"""Out-of-fold probabilities: nothing of an utterance's dialogue has a part in them."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_dialpref import LabelledGroupKFold, votes_to_scores, with_context
from sklearn_dialpref.datasets import make_dialogues
from sklearn_dialpref.inspection.out_of_fold import out_of_fold_proba
from tests.students import student

CLASSES = ["class_0", "class_1", "class_2"]
FITS = []


class Recorder(ClassifierMixin, BaseEstimator):
    """A student that keeps what it was given; its answers name the fit that gave them."""

    def __init__(self, classes=None):
        self.classes = classes

    def fit(self, X, y_human, y_llm=None):
        FITS.append({"X": np.asarray(X), "human": y_human, "llm": y_llm, "classes": self.classes})
        self.classes_, self.number_ = np.sort(self.classes), len(FITS)
        return self

    def predict_proba(self, X):
        FITS[-1]["test"] = np.asarray(X)
        return np.full((len(X), len(self.classes_)), self.number_)


@pytest.fixture
def fits():
    FITS.clear()
    return FITS


@pytest.fixture(scope="module")
def data():
    return make_dialogues(n_dialogues=24, n_features=6, human_fraction=0.5, random_state=0)


def ids_and_texts(data):
    X = data.X[["dialogue_id"]].astype(str)
    return X.assign(text=[f"word{row}" for row in range(len(X))])


def test_no_dialogue_is_predicted_by_who_has_seen_it(data, fits):
    X = ids_and_texts(data)
    proba = out_of_fold_proba(Recorder(), X, data.y_human, data.y_llm, cv=4)
    assert len(fits) == 4
    texts = X["text"].to_numpy()
    for number, fit in enumerate(fits, start=1):
        assert not set(fit["X"][:, 0]) & set(fit["test"][:, 0])
        assert len(fit["X"]) + len(fit["test"]) == len(X)
        assert fit["classes"] == CLASSES
        assert (proba[np.isin(texts, fit["test"][:, 1])] == number).all()
        row = [int(text[4:]) for text in fit["X"][:, 1]]
        expected = [data.y_human[row], np.asarray(data.y_llm)[row]]
        for given, kept in zip((fit["human"], fit["llm"]), expected, strict=True):
            assert_array_equal(pd.isna(given), pd.isna(kept))


def test_folds_are_those_of_the_splitter_and_spread_the_others(data, fits):
    X = ids_and_texts(data)
    out_of_fold_proba(Recorder(), X, data.y_human, data.y_llm, cv=3)
    tests = [X["dialogue_id"][test] for _, test in LabelledGroupKFold(3).split(X, data.y_human)]
    labelled = set().union(*tests)
    for fit, test in zip(fits, tests, strict=True):
        assert set(fit["test"][:, 0]) & labelled == set(test)
    others = [len(set(fit["test"][:, 0]) - labelled) for fit in fits]
    assert min(others) > 0 and max(others) - min(others) <= 2


@pytest.mark.parametrize("kind", ["human", "llm", "both"])
def test_the_student_with_either_kind_of_labels(data, kind):
    clf = student(max_epochs=2)
    human = None if kind == "llm" else data.y_human
    llm = None if kind == "human" else data.y_llm
    proba = out_of_fold_proba(clf, data.X, human, llm, cv=2)
    assert not hasattr(clf, "classes_")
    assert proba.shape == (len(data.X), 3)
    assert_allclose(proba.sum(axis=1), 1)
    order = np.random.RandomState(0).permutation(len(data.X))
    shuffled = out_of_fold_proba(
        clf,
        data.X.iloc[order],
        None if human is None else human[order],
        None if llm is None else np.asarray(llm)[order],
        cv=2,
    )
    assert_allclose(shuffled, proba[order], atol=1e-6)


def test_rows_without_dialogues_in_any_order():
    rng = np.random.RandomState(0)
    X = rng.randn(60, 3)
    y = np.where(X[:, 0] > 0, "yes", "no").astype(object)
    y[rng.rand(60) < 0.4] = None
    proba = out_of_fold_proba(LogisticRegression(), X, y, cv=3)
    assert ((proba[:, 1] > 0.5) == (X[:, 0] > 0)).mean() > 0.9
    order = rng.permutation(60)
    assert_allclose(
        out_of_fold_proba(LogisticRegression(), X[order], y[order], cv=3), proba[order]
    )


def test_a_plain_classifier_is_trained_on_labelled_rows():
    texts = ["late parcel", "thanks", "late", "thank you thanks", "late refund", "thanks a lot"]
    X = pd.DataFrame({"dialogue_id": list("abcdef"), "text": texts})
    pipeline = make_pipeline(
        FunctionTransformer(lambda X: X["text"]), CountVectorizer(), LogisticRegression()
    )
    y = [1, 0, 1, 0, None, None]
    proba = out_of_fold_proba(pipeline, X, y, cv=2)
    assert_array_equal(proba.argmax(axis=1), [1, 0, 1, 0, 1, 0])


@pytest.mark.filterwarnings("ignore:y_human has no example:UserWarning")
def test_a_class_that_a_fold_lacks_has_no_probability():
    X = np.arange(8.0)[:, None]
    y = ["a", "a", "a", "b", "b", "b", "rare", None]
    proba = out_of_fold_proba(KNeighborsClassifier(2), X, y, cv=2)
    assert proba.shape == (8, 3) and proba[6, 2] == 0
    assert_allclose(proba.sum(axis=1), 1)
    proba = out_of_fold_proba(student(max_epochs=1), X, y, cv=2)
    assert proba.shape == (8, 3) and np.isfinite(proba).all()


def test_too_few_labels_to_train_on():
    X = pd.DataFrame({"dialogue_id": [1, 1, 2, 2, 3], "f": np.arange(5.0)})
    with pytest.raises(ValueError, match="all labels are in the dialogues of fold 0"):
        out_of_fold_proba(student(max_epochs=1), X, ["a", "b", None, None, None], cv=2)
    with pytest.raises(ValueError, match=r"outside fold 0 .* of one class only, 'b'"):
        out_of_fold_proba(LogisticRegression(), X, ["a", "a", "b", "b", None], cv=2)
    llm = ["a", "b", "a", "b", "a"]
    proba = out_of_fold_proba(student(max_epochs=1), X, ["a", "b", None, None, None], llm, cv=2)
    assert np.isfinite(proba).all()


def test_cv_must_fit():
    X, y = np.arange(3.0)[:, None], ["a", "b", "a"]
    with pytest.raises(ValueError, match="cv=5 folds need as many rows, but X has 3"):
        out_of_fold_proba(LogisticRegression(), X, y)
    with pytest.raises(ValueError, match="cv == 1"):
        out_of_fold_proba(LogisticRegression(), X, y, cv=1)
    with pytest.raises(TypeError, match="cv must be"):
        out_of_fold_proba(LogisticRegression(), X, y, cv=LabelledGroupKFold(2))


def test_estimators_that_cannot_do_it(data):
    with pytest.raises(TypeError, match="RidgeClassifier has no predict_proba"):
        out_of_fold_proba(RidgeClassifier(), data.X, data.y_human)
    with pytest.raises(TypeError, match="LogisticRegression, whose fit takes no y_llm"):
        out_of_fold_proba(LogisticRegression(), data.X, data.y_human, data.y_llm)
    table = (np.random.RandomState(0).rand(9, 2) > 0.5).astype(float)
    with pytest.raises(TypeError, match="OneVsRestClassifier"):
        out_of_fold_proba(KNeighborsClassifier(1), np.arange(9.0)[:, None], table, cv=3)


@pytest.mark.parametrize("routing", [False, True])
def test_pipelines_and_searches(data, routing, fits):
    X = ids_and_texts(data)
    pipeline = Pipeline([("context", FunctionTransformer(with_context)), ("clf", Recorder())])
    with config_context(enable_metadata_routing=routing):
        if routing:
            pipeline[-1].set_fit_request(y_llm=True)
        out_of_fold_proba(pipeline, X, data.y_human, data.y_llm, cv=2)
        assert fits[0]["classes"] == CLASSES and fits[0]["llm"] is not None
        clf = student(max_epochs=1)
        search = GridSearchCV(Pipeline([("clf", clf)]), {}, cv=LabelledGroupKFold(2))
        proba = out_of_fold_proba(search, data.X, data.y_human, data.y_llm, cv=2)
    assert proba.shape == (len(X), 3)


def test_several_labels(data):
    classes = np.array(CLASSES)
    table = (np.asarray(data.y_true)[:, None] == classes).astype(float)
    table[pd.isna(data.y_human)] = np.nan
    table[::7, 0] = np.nan
    scores = votes_to_scores(data.y_llm, classes)
    proba = out_of_fold_proba(student(max_epochs=2), data.X, table, scores, cv=2)
    assert proba.shape == table.shape and ((proba >= 0) & (proba <= 1)).all()
    frame = pd.DataFrame(table, columns=CLASSES)
    named = out_of_fold_proba(student(max_epochs=2), data.X, frame, scores, cv=2)
    assert_allclose(named, proba)
    features = data.X.drop(columns="dialogue_id")
    plain = out_of_fold_proba(OneVsRestClassifier(LogisticRegression()), features, table, cv=2)
    assert plain.shape == table.shape


def test_scores_go_with_unsorted_classes(data):
    scores = pd.DataFrame(votes_to_scores(data.y_llm, CLASSES), columns=CLASSES)
    clf = student(max_epochs=1, classes=CLASSES[::-1])
    proba = out_of_fold_proba(clf, data.X, data.y_human, scores, cv=2)
    sorted_ = out_of_fold_proba(
        clf.set_params(classes=CLASSES), data.X, data.y_human, scores, cv=2
    )
    assert_allclose(proba, sorted_)


def test_neighbours_of_a_dialogue_are_there(data, tiny_encoder):
    X = ids_and_texts(data).assign(turn=data.X.groupby("dialogue_id").cumcount().to_numpy())
    clf = student(tiny_encoder, context_turns=1, max_epochs=1)
    order = np.random.RandomState(1).permutation(len(X))
    proba = out_of_fold_proba(clf, X, data.y_human, data.y_llm, cv=2)
    shuffled = out_of_fold_proba(
        clf, X.iloc[order], data.y_human[order], np.asarray(data.y_llm)[order], cv=2
    )
    assert_allclose(shuffled, proba[order], atol=1e-5)
