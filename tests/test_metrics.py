"""Scores on partly labelled rows, of pairs in order and of calibration."""

import pickle
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    fbeta_score,
    get_scorer,
    log_loss,
    make_scorer,
    roc_auc_score,
)
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.neighbors import KNeighborsClassifier

from sklearn_dialpref.metrics import (
    expected_calibration_error,
    masked_scorer,
    pairwise_accuracy_score,
)


class LabelledRowsClassifier(ClassifierMixin, BaseEstimator):
    """Logistic regression on the labelled rows."""

    def __init__(self, C=1.0):
        self.C = C

    def fit(self, X, y_human):
        labelled = pd.notna(y_human)
        self.model_ = LogisticRegression(C=self.C)
        self.model_.fit(X[labelled], np.array(y_human[labelled].tolist()))
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X):
        self.n_predicted_ = len(X)
        return self.model_.predict(X)

    def predict_proba(self, X):
        return self.model_.predict_proba(X)

    def decision_function(self, X):
        return self.model_.decision_function(X)


def make_labelled(names, seed=0, n=120):
    """Draw features and labels; half of the labels in an object array are None."""
    X, code = make_classification(
        n, n_classes=len(names), n_informative=4, flip_y=0.3, random_state=seed
    )
    full = np.array(names)[code]
    hidden = np.random.default_rng(seed).random(n) < 0.5
    partial = full.astype(object)
    partial[hidden] = None
    return X, full, partial, ~hidden


# -- masked_scorer ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [["neg", "neu", "pos"], [0, 1], [1.0, 2.0], [False, True], ["no", "yes"]]
)
@pytest.mark.parametrize(
    "name", ["accuracy", "f1_macro", "neg_log_loss", "roc_auc_ovr", "balanced_accuracy"]
)
def test_equals_the_scorer_on_the_labelled_rows(names, name):
    X, full, partial, labelled = make_labelled(names)
    clf = LabelledRowsClassifier().fit(X, partial)
    expected = get_scorer(name)(clf, X[labelled], full[labelled])
    assert masked_scorer(name)(clf, X, partial) == expected
    assert masked_scorer(get_scorer(name))(clf, X, list(partial)) == expected
    assert masked_scorer(name)(clf, X, full) == get_scorer(name)(clf, X, full)


def test_all_rows_are_predicted():
    X, _, partial, _ = make_labelled(["a", "b"])
    clf = LabelledRowsClassifier().fit(X, partial)
    masked_scorer("accuracy")(clf, X, partial)
    assert clf.n_predicted_ == len(X)


def test_forms_of_missing_labels():
    X, full, partial, labelled = make_labelled([0, 1])
    clf = LabelledRowsClassifier().fit(X, full)
    expected = accuracy_score(full[labelled], clf.predict(X[labelled]))
    as_float = np.where(labelled, full, np.nan)
    for y in (
        as_float,
        pd.Series(as_float, index=np.arange(len(full))[::-1]),
        pd.Series(partial).astype("Int64"),
        pl.Series(partial.tolist()),
    ):
        assert masked_scorer("accuracy")(clf, X, y) == expected


def test_binary_pos_label_scores_use_one_column():
    X, full, partial, labelled = make_labelled([0, 1])
    clf = LabelledRowsClassifier().fit(X, partial)
    expected = roc_auc_score(full[labelled], clf.decision_function(X)[labelled])
    assert masked_scorer("roc_auc")(clf, X, partial) == expected
    assert masked_scorer("f1")(clf, X, partial) == f1_score(
        full[labelled], clf.predict(X)[labelled]
    )


def test_metric_functions_and_plain_scorers():
    X, full, partial, labelled = make_labelled(["a", "b", "c"])
    clf = LabelledRowsClassifier().fit(X, partial)
    y, predicted, proba = full[labelled], clf.predict(X)[labelled], clf.predict_proba(X)[labelled]

    scorer = masked_scorer(fbeta_score, beta=2, average="macro", pos_label=None)
    assert scorer(clf, X, partial) == fbeta_score(y, predicted, beta=2, average="macro")

    # A loss is turned, and works on rows that lack a class.
    scorer = masked_scorer(
        log_loss,
        response_method="predict_proba",
        greater_is_better=False,
        labels=["a", "b", "c"],
    )
    assert scorer(clf, X, partial) == -log_loss(y, proba)
    without_c = np.where(partial == "c", None, partial)
    assert np.isfinite(scorer(clf, X, without_c))

    def plain_metric(true, predicted):
        return np.mean(true == predicted)

    def plain_scorer(estimator, X, y=None):
        return np.mean(estimator.predict(X) == y)

    expected = accuracy_score(y, predicted)
    for scoring in (
        plain_metric,
        plain_scorer,
        lambda true, predicted: plain_metric(true, predicted),
        lambda clf, data, labels: plain_scorer(clf, data, labels),
    ):
        assert masked_scorer(scoring)(clf, X, partial) == expected


def test_multilabel_drops_partly_labelled_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    full = (X + rng.normal(size=X.shape) > 0).astype(int)
    partial = np.where(rng.random(X.shape) < 0.2, np.nan, full)
    rows = ~np.isnan(partial).any(axis=1)
    clf = KNeighborsClassifier().fit(X, full)
    assert masked_scorer("f1_macro")(clf, X, partial) == f1_score(
        full[rows], clf.predict(X)[rows], average="macro"
    )
    as_frame = pd.DataFrame(partial).astype("Int64")
    assert masked_scorer("f1_macro")(clf, X, as_frame) == masked_scorer("f1_macro")(
        clf, X, partial
    )
    # predict_proba of this classifier is a list of arrays
    assert masked_scorer("roc_auc")(clf, X, partial) == get_scorer("roc_auc")(
        clf, X[rows], full[rows]
    )


@pytest.mark.parametrize("routing", [False, True])
def test_in_cross_validate_and_grid_search(routing):
    X, _, partial, labelled = make_labelled(["a", "b", "c"])
    cv = KFold(3)
    with sklearn.config_context(enable_metadata_routing=routing), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = cross_validate(
            LabelledRowsClassifier(),
            X,
            partial,
            cv=cv,
            scoring={"acc": masked_scorer("accuracy"), "f1": masked_scorer("f1_macro")},
            params={},  # 1.6.0 takes no None with routing on
            return_estimator=True,
            error_score="raise",
        )
        search = GridSearchCV(
            LabelledRowsClassifier(), {"C": [1e-9, 1.0]}, cv=cv, scoring=masked_scorer("f1_macro")
        ).fit(X, partial)
    for clf, score, (_, test) in zip(
        result["estimator"], result["test_f1"], cv.split(X), strict=True
    ):
        rows = test[labelled[test]]
        assert score == f1_score(partial[rows].astype(str), clf.predict(X[rows]), average="macro")
    assert search.best_params_ == {"C": 1.0}
    assert search.score(X, partial) == masked_scorer("f1_macro")(search, X, partial)


def test_sample_weight_is_masked_and_routed():
    X, full, partial, labelled = make_labelled(["a", "b"])
    clf = LabelledRowsClassifier().fit(X, partial)
    weight = np.random.default_rng(0).random(len(X))
    expected = accuracy_score(
        full[labelled], clf.predict(X)[labelled], sample_weight=weight[labelled]
    )
    scorer = masked_scorer("accuracy")
    assert scorer(clf, X, partial, sample_weight=weight) == expected
    assert scorer(clf, X, partial, sample_weight=None) == scorer(clf, X, partial)
    with sklearn.config_context(enable_metadata_routing=True):
        scorers = [
            masked_scorer(make_scorer(accuracy_score).set_score_request(sample_weight="w")),
            masked_scorer("accuracy").set_score_request(sample_weight="w"),
        ]
        splits = [(np.arange(len(X)), np.arange(len(X)))]
        for scoring in (*scorers, {"first": scorers[0]}):
            result = cross_validate(
                clf, X, partial, cv=splits, scoring=scoring, params={"w": weight}
            )
            assert [v[0] for k, v in result.items() if k.startswith("test")] == [expected]
    assert "sample_weight" in str(scorers[0].get_metadata_routing())
    assert "sample_weight" not in str(masked_scorer(lambda e, X, y: 0).get_metadata_routing())


def test_sample_weight_in_a_search_without_routing():
    X, full, partial, _ = make_labelled(["a", "b"])
    weight = np.ones(len(X))
    scoring = {"acc": masked_scorer("accuracy"), "own": masked_scorer(lambda e, X, y: 0.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 1.9 notes that "own" takes no weights
        search = GridSearchCV(LogisticRegression(), {"C": [1.0]}, scoring=scoring, refit="acc")
        search.fit(X, full, sample_weight=weight)
    assert search.score(X, partial) == masked_scorer("accuracy")(search, X, partial)


def test_repr_and_pickle():
    X, _, partial, _ = make_labelled(["a", "b"])
    clf = LabelledRowsClassifier().fit(X, partial)
    scorer = masked_scorer("f1_macro")
    assert repr(scorer).startswith("masked_scorer(make_scorer(f1_score")
    copied = pickle.loads(pickle.dumps(scorer))
    assert copied(clf, X, partial) == scorer(clf, X, partial)


def test_bad_scoring():
    X, _, partial, _ = make_labelled(["a", "b"])
    clf = LabelledRowsClassifier().fit(X, partial)
    with pytest.raises(ValueError, match="all 120 rows have a missing one"):
        masked_scorer("accuracy")(clf, X, np.full(120, None))
    with pytest.raises(ValueError, match="scoring"):
        masked_scorer("acuracy")
    with pytest.raises(ValueError, match="is a scorer, which has its own"):
        masked_scorer("f1_macro", beta=2)
    with pytest.raises(ValueError, match="is a scorer, which has its own"):
        masked_scorer(get_scorer("f1_macro"), response_method="predict_proba")


# -- pairwise_accuracy_score -----------------------------------------------------------------


def brute_force_pairs(truth, score, groups):
    """Count by the definition: truth (n, K) of 1, 0, NaN."""
    right, pairs = np.zeros(truth.shape[1]), np.zeros(truth.shape[1])
    for c in range(truth.shape[1]):
        for i in range(len(truth)):
            for j in range(len(truth)):
                if groups[i] == groups[j] and truth[i, c] == 1 and truth[j, c] == 0:
                    pairs[c] += 1
                    right[c] += (score[i, c] > score[j, c]) + (score[i, c] == score[j, c]) / 2
    return right, pairs


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("multilabel", [False, True])
def test_pairwise_accuracy_equals_brute_force(seed, multilabel):
    rng = np.random.default_rng(seed)
    n, classes = 60, ["c", "a", "b"]
    groups = rng.choice(["x", "y", "z", "w"], n)
    score = rng.integers(0, 4, (n, 3)) / 4 if seed % 2 else rng.normal(size=(n, 3))
    if multilabel:
        truth = rng.choice([0, 1, np.nan], (n, 3))
        y, names = truth, None
    else:
        code = rng.integers(-1, 3, n)
        truth = np.where(code[:, None] < 0, np.nan, code[:, None] == np.arange(3))
        y, names = [None if k < 0 else classes[k] for k in code], classes
    right, pairs = brute_force_pairs(truth, score, groups)

    def ours(average):
        return pairwise_accuracy_score(y, score, groups, classes=names, average=average)

    assert_allclose(ours(None), right / pairs, rtol=1e-12)
    assert_allclose(ours("macro"), (right / pairs).mean(), rtol=1e-12)
    assert_allclose(ours("micro"), right.sum() / pairs.sum(), rtol=1e-12)


def test_pairwise_accuracy_is_auc_in_one_dialogue_and_ignores_levels():
    rng = np.random.default_rng(0)
    y, score = rng.integers(0, 2, 200), rng.normal(size=200)
    auc = roc_auc_score(y, score)
    assert_allclose(pairwise_accuracy_score(y, score, np.zeros(200)), auc)
    groups = rng.integers(0, 20, 200)
    table = np.column_stack([-score, score])
    plain = pairwise_accuracy_score(y, table, groups)
    assert_allclose(plain, pairwise_accuracy_score(y, score, groups))
    shifted = np.exp(table + 3.0 * groups[:, None] / 20)
    assert_allclose(pairwise_accuracy_score(y, shifted, groups), plain)
    order = rng.permutation(200)
    assert_allclose(pairwise_accuracy_score(y[order], table[order], groups[order]), plain)
    assert pairwise_accuracy_score(y, y, groups) == 1
    assert pairwise_accuracy_score(y, -y, groups) == 0


def test_pairwise_accuracy_of_a_long_dialogue_needs_linear_memory():
    n = 100_000
    score = np.random.default_rng(0).random((n, 3))
    y = score.argmax(axis=1)
    tracemalloc.start()
    pairwise_accuracy_score(y, score, np.zeros(n))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_pairwise_accuracy_without_pairs():
    # "b" has no pair: alone in its dialogue
    y, score = ["a", "c", "b"], np.eye(3)[[0, 2, 1]]
    groups = [0, 0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert pairwise_accuracy_score(y, score, groups) == 1
        assert pairwise_accuracy_score(y, score, groups, average="micro") == 1
    with pytest.warns(UndefinedMetricWarning, match="1 of 3 scores"):
        by_class = pairwise_accuracy_score(y, score, groups, average=None)
    assert_array_equal(by_class, [1, np.nan, 1])
    for average in ("macro", "micro"):
        with pytest.warns(UndefinedMetricWarning, match="NaN where no dialogue"):
            assert np.isnan(pairwise_accuracy_score(y, score, [0, 1, 2], average=average))
    with pytest.warns(UndefinedMetricWarning):
        result = pairwise_accuracy_score(
            [None] * 3, score, groups, classes=["a", "b", "c"], average=None
        )
    assert np.isnan(result).all()


@pytest.mark.parametrize(
    ("changed", "gist"),
    [
        ({"average": "weighted"}, "average must be 'macro', 'micro' or None"),
        ({"classes": ["a", "b"]}, "scores have 3 columns but classes names 2"),
        ({"classes": ["a", "b", "x"]}, r"y_true holds \['c'\], which are not among"),
        ({"y_true": ["a", "b", None]}, "scores have 3 columns but y_true holds 2.*classes="),
        ({"y_true": ["a", "b"]}, "inconsistent numbers of samples"),
        ({"y_true": np.zeros((3, 2))}, "y_true has 2 labels but y_score has 3"),
        ({"y_true": np.eye(3) * 2}, "y_true means multilabel.* 0, 1 or missing, but row 0"),
        ({"y_true": np.full((3, 3), "a")}, "must hold 0, 1 or missing, but row 0 holds .'a'"),
        ({"y_score": np.full((3, 3), np.nan)}, "contains NaN"),
        ({"groups": [0, None, 1]}, "groups has missing values"),
    ],
)
def test_bad_pairwise_input(changed, gist):
    good = {"y_true": ["a", "b", "c"], "y_score": np.eye(3), "groups": [0, 0, 0]}
    with pytest.raises(ValueError, match=gist):
        pairwise_accuracy_score(**{**good, **changed})


@pytest.mark.parametrize("dtype", [float, "Int64", "boolean", object])
def test_pairwise_accuracy_of_nullable_columns(dtype):
    y = pd.DataFrame({"a": [1, 0, 1, None], "b": [None, 0, 1, None]}).astype(dtype)
    score = [[0.9, 0.5], [0.1, 0.2], [0.5, 0.1], [0.3, 0.3]]
    assert pairwise_accuracy_score(y, score, ["x", "x", 1, 1], average="micro") == 1


def test_pairwise_accuracy_as_a_scorer():
    X, _, partial, _ = make_labelled(["a", "b", "c"])
    clf = LabelledRowsClassifier().fit(X, partial)
    groups = np.arange(len(X)) // 6
    expected = pairwise_accuracy_score(partial, clf.predict_proba(X), groups)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = masked_scorer(pairwise_accuracy_score, response_method="predict_proba")
        scorer.set_score_request(groups="dialogue")
        splits = [(np.arange(len(X)), np.arange(len(X)))]
        result = cross_validate(
            clf, X, partial, cv=splits, scoring=scorer, params={"dialogue": groups}
        )
    assert_allclose(result["test_score"], expected)


# -- expected_calibration_error --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_calibration_error_equals_brute_force(seed, n_bins):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet([0.5] * 3, 200)
    names = np.array(["b", "c", "a"])
    y = names[rng.integers(0, 3, 200)].astype(object)
    y[rng.random(200) < 0.3] = None
    expected, n = 0.0, sum(label is not None for label in y)
    for m in range(n_bins):
        inside = [
            (p.max(), label == names[p.argmax()])
            for p, label in zip(proba, y, strict=True)
            if label is not None and m / n_bins < p.max() <= (m + 1) / n_bins
        ]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            expected += len(inside) / n * abs(right - confidence)
    assert_allclose(
        expected_calibration_error(y, proba, n_bins=n_bins, classes=names), expected, rtol=1e-12
    )


def test_calibration_error_by_hand():
    assert expected_calibration_error(["a", "b"], [[1, 0], [0, 1]]) == 0
    assert expected_calibration_error(["b", "a"], [[1, 0], [0, 1]]) == 1
    # Half of the rows at 0.5 right: nothing to correct.
    assert expected_calibration_error([0, 1], [[0.5, 0.5], [0.5, 0.5]]) == 0
    # 0.6 and 0.8 are confidences of different bins with 10 bins, of the same with 2.
    y, proba = [1, 0], [0.6, 0.8]
    assert_allclose(expected_calibration_error(y, proba, n_bins=10), (0.4 + 0.8) / 2)
    assert_allclose(expected_calibration_error(y, proba, n_bins=2), 0.2)
    # A confidence on an edge belongs to the bin below: 0.5 (wrong) and 0.6 (right) lie apart.
    y, proba = [1, 1, 0], [[0.5, 0.5], [0.4, 0.6], [1.0, 0.0]]
    assert_allclose(expected_calibration_error(y, proba, n_bins=2), (0.5 + 0.4) / 3)


@pytest.mark.parametrize(
    ("changed", "gist"),
    [
        ({"n_bins": 0}, "n_bins == 0, must be >= 1"),
        ({"y_true": [None, None]}, "all 2 rows have a missing one"),
        ({"y_true": np.zeros((2, 2))}, "label by label"),
        ({"y_true": ["a"]}, "inconsistent numbers of samples"),
        ({"y_true": ["a", None]}, "2 columns but y_true holds 1"),
        ({"y_proba": [[2.0, -1.0], [0.5, 0.5]]}, r"values reach from -1 to 2"),
        ({"y_proba": [[0.5, 0.2], [0.5, 0.5]]}, r"row sums from 0\.7 to 1"),
    ],
)
def test_bad_calibration_input(changed, gist):
    good = {"y_true": ["a", "b"], "y_proba": [[0.7, 0.3], [0.2, 0.8]]}
    with pytest.raises(ValueError, match=gist):
        expected_calibration_error(**{**good, **changed})


def test_scorers_of_rows_that_do_not_match():
    X, _, partial, labelled = make_labelled(["a", "b"])
    clf = LabelledRowsClassifier().fit(X, partial)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        masked_scorer("accuracy")(clf, X[labelled], partial)  # as many as there are labels
    mixed = np.array([*partial[:-2], "a", 1], dtype=object)
    with pytest.raises(ValueError, match=r"y_true mixes labels of the types \['int', 'str'\]"):
        masked_scorer("accuracy")(clf, X, mixed)
    lists = np.array([None, *partial[1:-1], ["a"]], dtype=object)
    with pytest.raises(ValueError, match=r"y_true holds \['a'\] .*is no label"):
        masked_scorer("accuracy")(clf, X, lists)
    for scoring in (None, 3, ["accuracy"]):
        with pytest.raises(TypeError, match="scoring must be the name of a scorer"):
            masked_scorer(scoring)
