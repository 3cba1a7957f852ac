"""What a user sees of the estimator after a wrong call, and that it does not go through."""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import students
from sklearn import config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_dialpref import LabelledGroupKFold, label_budget_curve
from sklearn_dialpref._training.inputs import as_feature_tensor
from sklearn_dialpref.datasets import make_dialogues


@pytest.fixture(scope="module")
def data():
    return make_dialogues(n_dialogues=30, n_features=5, human_fraction=0.3, random_state=0)


@pytest.fixture(scope="module")
def chats():
    return make_dialogues(n_dialogues=10, human_fraction=1.0, random_state=0)


student = partial(students.student, max_epochs=2)


@pytest.mark.parametrize("encoder", [None, 5, b"precomputed", ["a"]])
def test_an_encoder_that_is_none(data, encoder):
    with pytest.raises(TypeError, match=r"encoder must be the name or folder.*got"):
        student(encoder).fit(data.X, data.y_human)


def test_attributes_of_features_do_not_outlive_them(data, chats, tiny_encoder):
    clf = student().fit(data.X, data.y_human)
    assert clf.n_features_in_ == 5
    clf.set_params(encoder=tiny_encoder).fit(chats.X, chats.y_human)
    assert not hasattr(clf, "n_features_in_") and not hasattr(clf, "feature_names_in_")


def test_no_rows_and_no_labels(chats, tiny_encoder):
    clf = student(tiny_encoder).fit(chats.X, chats.y_human)
    with pytest.raises(ValueError, match="0 sample"):
        clf.predict([])
    for nothing in (None, 5):
        with pytest.raises(ValueError, match="labels must be a sequence"):
            clf.score(chats.X, nothing)


def test_features_beyond_single_precision(data):
    clf = student().fit(data.X, data.y_human)
    X = data.X.copy()
    X.iloc[3, -1] = 1e39
    with pytest.raises(ValueError, match="infinity or a value too large"):
        clf.predict_proba(X)


def test_class_weight_of_a_class_that_only_the_llm_knows(data):
    y_human = data.y_human.where(data.y_human != "class_2", None)
    clf = student(class_weight={"class_2": 3.0}).fit(data.X, y_human, data.y_llm)
    assert clf.classes_.tolist() == data.classes.tolist()


def test_class_weight_in_folds_that_lack_the_class(data):
    first = data.X["dialogue_id"] == data.X["dialogue_id"][data.y_human == "class_2"].iloc[0]
    y_human = data.y_human.where((data.y_human != "class_2") | first, None)
    scores = cross_val_score(
        student(class_weight={"class_2": 3.0}),
        data.X,
        y_human,
        cv=LabelledGroupKFold(3),
        params={"y_llm": data.y_llm},
        error_score="raise",
    )
    assert len(scores) == 3


@pytest.mark.parametrize("multilabel", [False, True])
def test_class_weight_of_no_class(data, multilabel):
    y_human = pd.get_dummies(data.y_true).astype(int) if multilabel else data.y_human
    with pytest.raises(ValueError, match=r"class_weight names \['clas_0'\], which are"):
        student(class_weight={"clas_0": 3.0}).fit(data.X, y_human)


def test_calibration_of_a_fitted_student(data):
    held_out = np.isin(data.groups, np.unique(data.groups)[:10])
    clf = student().fit(data.X[~held_out], data.y_human[~held_out], data.y_llm[~held_out])
    known = data.y_human.notna().to_numpy() & held_out
    calibrated = CalibratedClassifierCV(FrozenEstimator(clf), cv=2)
    calibrated.fit(data.X[known], data.y_human[known])
    assert calibrated.classes_.tolist() == clf.classes_.tolist()
    np.testing.assert_allclose(calibrated.predict_proba(data.X).sum(axis=1), 1)


def test_labels_that_scikit_learn_has_numbered(data):
    def predict(y_llm):
        return cross_val_predict(
            student(),
            data.X,
            data.y_true,
            groups=data.groups,
            cv=GroupKFold(3),
            params={"y_llm": y_llm},
            method="predict_proba",
        )

    with pytest.raises(ValueError, match=r"such as \d but y_llm such as 'class.*array of scores"):
        predict(data.y_llm)
    assert predict(data.y_llm_scores.to_numpy()).shape == (len(data.X), 3)
    with config_context(enable_metadata_routing=True):
        voting = VotingClassifier([("a", student())], voting="soft")
        with pytest.raises(ValueError, match="such as 0 but y_llm such as 'class"):
            voting.fit(data.X, data.y_true, y_llm=data.y_llm)
        voting.fit(data.X, data.y_true, y_llm=data.y_llm_scores.to_numpy())
    assert set(voting.predict(data.X)) <= set(data.classes)


def test_features_that_may_not_be_written_to(data):
    clf = student().fit(data.X, data.y_human)
    X = data.X.iloc[:, 1:].to_numpy(dtype=np.float32, copy=True)
    X.flags.writeable = False
    tensor = as_feature_tensor(X).numpy()
    assert tensor.flags.writeable and not np.shares_memory(tensor, X)
    assert clf.predict_proba(data.X).shape == (len(X), 3)


def shuffled(values):
    return values.sample(frac=1, random_state=0)


@pytest.mark.parametrize("name", ["y_human", "y_llm"])
def test_an_index_in_another_order_than_that_of_X(data, name):
    labels = {"y_human": data.y_human, "y_llm": data.y_llm_scores}
    with pytest.warns(UserWarning, match=rf"index of {name} is .*pass {name}\.loc\[X\.index\]"):
        student().fit(data.X, **{**labels, name: shuffled(labels[name])})
    with pytest.warns(UserWarning, match="index of y is that of X in another order"):
        list(LabelledGroupKFold(3).split(data.X, shuffled(data.y_human)))


def test_indices_that_are_in_order_or_other_ones(data):
    X, y_human, y_llm = data.X, data.y_human, data.y_llm_scores
    order = np.random.RandomState(0).permutation(len(X))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in (order, slice(None, None, 2)):
            student().fit(X.iloc[rows], y_human.iloc[rows], y_llm.iloc[rows])
        student().fit(X.set_index(order), y_human.to_numpy(), y_llm.to_numpy())
        student().fit(X, y_human.set_axis(order + 1), y_llm)


@pytest.mark.parametrize("form", ["values", "array", "index", "arrow", "chunked"])
def test_texts_of_any_container(chats, tiny_encoder, form):
    clf = student(tiny_encoder, max_epochs=1).fit(chats.X, chats.y_human)
    texts = chats.X["text"]
    forms = {
        "values": lambda: texts.values,
        "array": lambda: texts.array,
        "index": lambda: pd.Index(texts),
        "arrow": lambda: pa.array(texts),
        "chunked": lambda: pa.chunked_array([texts[:9], texts[9:]]),
    }
    probabilities = clf.predict_proba(forms[form]())
    np.testing.assert_array_equal(probabilities, clf.predict_proba(texts.tolist()))


def test_lone_surrogates(chats, tiny_encoder):
    texts = [*chats.X["text"]]
    texts[3] += "\ud83d"
    clf = student(tiny_encoder, max_epochs=1)
    with pytest.raises(ValueError, match="row 3 of X has a lone surrogate"):
        clf.fit(texts, chats.y_human)
    clf.fit(chats.X, chats.y_human)
    with pytest.raises(ValueError, match="row 3 of X has a lone surrogate"):
        clf.predict(texts)


@pytest.mark.parametrize("name", ["y", "llm", "clf__y_llm", "sample_weight"])
def test_arguments_by_another_name(data, name):
    with pytest.raises(TypeError, match=f"{name}.*clf.fit.X, y_human, y_llm=votes.*clf__y_llm="):
        student().fit(data.X, data.y_human, **{name: data.y_llm})


def test_llm_labels_alone(data):
    clf = student().fit(data.X, y_llm=data.y_llm)
    expected = student().fit(data.X, None, data.y_llm).predict_proba(data.X)
    np.testing.assert_array_equal(clf.predict_proba(data.X), expected)
    with pytest.raises(ValueError, match="y_human and y_llm are both missing"):
        student().fit(data.X)


@pytest.mark.parametrize("routing", [False, True])
def test_a_label_budget_of_a_pipeline(data, routing):
    labels = {"budgets": [0.5, 1], "cv": 2, "random_state": 0}
    alone = label_budget_curve(student(), data.X, data.y_human, data.y_llm, **labels)
    with config_context(enable_metadata_routing=routing):
        pipeline = make_pipeline(student())
        found = label_budget_curve(pipeline, data.X, data.y_human, data.y_llm, **labels)
    np.testing.assert_array_equal(found.scores, alone.scores)
