"""What a user sees of the folds over partly labelled dialogues."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_validate
from sklearn.pipeline import make_pipeline

from sklearn_dialpref.metrics import masked_scorer
from sklearn_dialpref.model_selection import LabelledGroupKFold

CLASSES = ["neg", "neu", "pos"]


def make_data(seed=0, n_dialogues=30, labelled_share=0.5):
    """Draw dialogues of 1 to 8 utterances; a third of them has no label at all."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 9, n_dialogues)
    dialogue = np.repeat(np.arange(n_dialogues), length)
    y = rng.choice(np.array(CLASSES, dtype=object), len(dialogue), p=[0.6, 0.3, 0.1])
    hidden = (rng.random(len(y)) > labelled_share) | (dialogue % 3 == 0)
    X = pd.DataFrame({
        "dialogue_id": [f"d{d:02}" for d in dialogue],
        "turn": np.concatenate([np.arange(n) for n in length]),
        "text": [f"{label} words {i}" for i, label in enumerate(y)],
    })  # fmt: skip
    return X, np.where(hidden, None, y)


class LabelledTextClassifier(ClassifierMixin, BaseEstimator):
    """Fits on the labelled rows, and remembers the shape of what it was given."""

    def __init__(self, C=1.0):
        self.C = C

    def fit(self, X, y_human, y_llm=None):
        labelled = pd.notna(y_human)
        self.n_rows_, self.n_llm_ = len(X), None if y_llm is None else len(y_llm)
        self.model_ = make_pipeline(CountVectorizer(), LogisticRegression(C=self.C))
        self.model_.fit(X["text"][labelled], y_human[labelled].astype(str))
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X):
        return self.model_.predict(X["text"])


def check_rules(X, labelled, splits, n_splits):
    ids = np.asarray(X["dialogue_id"])
    with_label = set(ids[labelled])
    assert len(splits) == n_splits
    for train, test in splits:
        assert len(test) > 0
        assert labelled[test].all()
        assert not set(ids[train]) & set(ids[test])
        held_out = np.isin(ids, ids[test])
        assert_array_equal(np.sort(train), np.flatnonzero(~held_out))
        assert set(ids) - with_label <= set(ids[train])
    tested = np.concatenate([test for _, test in splits])
    assert_array_equal(np.sort(tested), np.flatnonzero(labelled))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("n_splits", [2, 5])
def test_rules_hold(seed, shuffle, n_splits):
    X, y = make_data(seed)
    cv = LabelledGroupKFold(n_splits, shuffle=shuffle, random_state=0 if shuffle else None)
    check_rules(X, pd.notna(y), list(cv.split(X, y)), n_splits)


@pytest.mark.parametrize("seed", range(5))
def test_multilabel_row_with_any_label_is_tested(seed):
    X, _ = make_data(seed)
    rng = np.random.default_rng(seed)
    y = rng.choice([0.0, 1.0, np.nan], size=(len(X), 3), p=[0.3, 0.1, 0.6])
    splits = list(LabelledGroupKFold(4).split(X, y))
    check_rules(X, ~np.isnan(y).all(axis=1), splits, 4)
    positives = np.array([np.nansum(y[test], axis=0) for _, test in splits])
    negatives = np.array([np.nansum(1 - y[test], axis=0) for _, test in splits])
    assert (np.ptp(positives, axis=0) <= 4).all()
    assert (np.ptp(negatives, axis=0) <= 6).all()


@pytest.mark.parametrize("shuffle", [False, True])
def test_row_order_does_not_matter(shuffle):
    X, y = make_data()
    cv = LabelledGroupKFold(4, shuffle=shuffle, random_state=1 if shuffle else None)
    order = np.random.default_rng(0).permutation(len(X))
    for (_, test), (_, shuffled) in zip(
        cv.split(X, y), cv.split(X.iloc[order], y[order]), strict=True
    ):
        assert set(test) == set(order[shuffled])


def test_forms_that_cannot_be_read():
    X, y = make_data()
    cv = LabelledGroupKFold(3)
    for groups, message in (
        (np.zeros((len(X), 2)), "groups must be 1-D"),
        ([[g, "a"] for g in X["dialogue_id"]], "groups must be 1-D"),
        (pd.Series([{}] * len(X)), "groups must be strings or numbers, but row 0 holds {}"),
    ):
        with pytest.raises(ValueError, match=message):
            next(cv.split(X, y, groups))
    for labels, message in (
        (np.zeros((len(X), 2, 2)), "y must be 1-D or 2-D"),
        (pd.Series([["a", "b"]] * len(X)), r"y must be strings or numbers, but row 0 holds \["),
    ):
        with pytest.raises(ValueError, match=message):
            next(cv.split(X, labels))


def test_forms_of_the_input_give_the_same_folds():
    X, y = make_data()
    cv = LabelledGroupKFold(3)
    expected = list(cv.split(X, y))
    forms = [
        (pl.from_pandas(X), pl.Series(y.tolist())),
        (X[["dialogue_id", "text"]].to_numpy(dtype=object), list(y)),
        (X, pd.Series(y, index=X.index, dtype="string")),
        (X, pd.Categorical(y)),
        (X, pd.DataFrame({"label": y})),
        (X, np.array([np.nan if v is None else CLASSES.index(v) for v in y])),
        (X, pd.array([None if v is None else CLASSES.index(v) for v in y], dtype="Int64")),
    ]
    for X_form, y_form in forms:
        for fold, other in zip(expected, cv.split(X_form, y_form), strict=True):
            assert_array_equal(fold[0], other[0])
            assert_array_equal(fold[1], other[1])


def test_rows_without_dialogues_are_their_own():
    texts = [f"text {i}" for i in range(10)]
    y = [None, "a", "a", "b", "b", None, "a", "a", "b", "b"]
    for X in (texts, np.arange(20.0).reshape(10, 2)):
        splits = list(LabelledGroupKFold(4).split(X, y))
        assert all(sorted(y[i] for i in test) == ["a", "b"] for _, test in splits)


@pytest.mark.parametrize("seed", range(5))
def test_stratified_at_least_as_well_as_scikit_learn(seed):
    X, y = make_data(seed, n_dialogues=60, labelled_share=1.0)
    labelled = pd.notna(y)
    X, y = X[labelled], y[labelled].astype(str)

    def unevenness(splits):
        counts = np.array([[np.sum(y[test] == c) for c in CLASSES] for _, test in splits])
        return (counts / counts.sum(axis=0)).std(axis=0).mean()

    ours = unevenness(LabelledGroupKFold(5).split(X, y))
    theirs = unevenness(StratifiedGroupKFold(5).split(X, y, X["dialogue_id"]))
    assert ours <= theirs


def test_shuffle_is_seeded():
    X, y = make_data()

    def tests_of(seed):
        cv = LabelledGroupKFold(3, shuffle=True, random_state=seed)
        return [test.tolist() for _, test in cv.split(X, y)]

    assert tests_of(0) == tests_of(0)
    assert len({str(tests_of(seed)) for seed in range(5)}) > 1


def test_one_labelled_dialogue_per_fold():
    X, y = make_data(n_dialogues=6, labelled_share=1.0)  # two of the six have no label
    check_rules(X, pd.notna(y), list(LabelledGroupKFold(4).split(X, y)), 4)


def test_groups_replace_dialogues():
    X, y = make_data()
    customer = X["dialogue_id"].str[1:].astype(int) // 2
    for train, test in LabelledGroupKFold(3).split(X, y, groups=customer):
        assert not set(customer[train]) & set(customer[test])
    # With groups, X need be nothing that names dialogues.
    by_group = list(LabelledGroupKFold(3).split(np.zeros(len(y)), y, X["dialogue_id"]))
    for (_, a), (_, b) in zip(by_group, LabelledGroupKFold(3).split(X, y), strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [float, "Int64", "boolean", object])
def test_multilabel_in_nullable_columns(dtype):
    X = pd.DataFrame({"dialogue_id": ["a", "a", "b", "c"], "text": ["x"] * 4})
    y = pd.DataFrame({"a": [1, 0, 1, None], "b": [None, 0, 1, None]}).astype(dtype)
    tests = [test.tolist() for _, test in LabelledGroupKFold(2).split(X, y)]
    assert sorted(tests) == [[0, 1], [2]]


PAIRS = [["a", "hi"], ["a", "yo"], ["b", "hi"], ["b", "yo"]]


@pytest.mark.parametrize(
    "X",
    [
        PAIRS,
        np.array(PAIRS, dtype=object),
        np.array(PAIRS),
        pd.DataFrame(PAIRS, columns=["dialogue_id", "text"]),
        pd.DataFrame({"dialogue_id": ["a", "a", "b", "b"], "f": [1.0, 2.0, 3.0, 4.0]}),
        pl.DataFrame(PAIRS, schema=["dialogue_id", "text"], orient="row"),
        pa.table({"dialogue_id": ["a", "a", "b", "b"], "text": ["x"] * 4}),
    ],
    ids=["list", "object", "U", "pandas", "features", "polars", "pyarrow"],
)
def test_groups_may_not_cut_a_dialogue_of_any_form(X):
    with pytest.raises(ValueError, match="dialogue 'a' into different groups"):
        next(LabelledGroupKFold(2).split(X, list("pnpn"), groups=[0, 1, 0, 1]))
    (_, test), _ = LabelledGroupKFold(2).split(X, list("pnpn"), groups=["x", "x", 1, 1])
    assert test.tolist() in ([0, 1], [2, 3])


@pytest.mark.parametrize("X", [["hi", "yo"], pd.Series(["hi", "yo"]), pl.Series(["hi", "yo"])])
def test_groups_of_texts_and_of_mixed_types(X):
    tests = [test.tolist() for _, test in LabelledGroupKFold(2).split(X, ["p", "n"], ["a", 1])]
    assert sorted(tests) == [[0], [1]]


def test_dialogues_of_mixed_types_with_groups():
    X = pd.DataFrame({"dialogue_id": ["a", 1, "a"], "text": ["x", "y", "z"]})
    tests = [test.tolist() for _, test in LabelledGroupKFold(2).split(X, list("pnp"), [0, 1, 0])]
    assert sorted(tests) == [[0, 2], [1]]


def test_groups_may_not_cut_a_dialogue():
    X, y = make_data()
    with pytest.raises(ValueError, match=r"dialogue 'd\d\d' into different groups"):
        next(LabelledGroupKFold(3).split(X, y, groups=X["turn"]))
    with pytest.raises(ValueError, match="groups has missing values"):
        next(LabelledGroupKFold(3).split(X, y, groups=y))


@pytest.mark.parametrize(
    ("params", "error", "gist"),
    [
        ({"n_splits": 1}, ValueError, "n_splits == 1, must be >= 2"),
        ({"n_splits": 2.5}, TypeError, "n_splits must be an instance of int"),
        ({"shuffle": "yes"}, TypeError, "shuffle must be an instance of"),
        ({"random_state": 0}, ValueError, "set shuffle=True"),
        ({"n_splits": 21}, ValueError, "needs at least 21 dialogues .* but 20 of the 30"),
    ],
)
def test_bad_parameters(params, error, gist):
    X, y = make_data(labelled_share=1.0)
    with pytest.raises(error, match=gist):
        next(LabelledGroupKFold(**params).split(X, y))


def test_bad_labels():
    X, y = make_data()
    cv = LabelledGroupKFold(2)
    with pytest.raises(ValueError, match="y is None; pass the human labels"):
        next(cv.split(X))
    with pytest.raises(ValueError, match="but 0 of the 30 dialogues have one"):
        next(cv.split(X, np.full(len(X), None)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(cv.split(X, y[:-1]))
    with pytest.raises(ValueError, match=r"0, 1 or missing, but row 0 holds \['pos'"):
        next(cv.split(X, np.full((len(X), 2), "pos", dtype=object)))


def test_repr_and_n_splits():
    cv = LabelledGroupKFold(3, shuffle=True, random_state=0)
    assert repr(cv) == "LabelledGroupKFold(n_splits=3, random_state=0, shuffle=True)"
    assert cv.get_n_splits() == 3
    assert repr(clone(cv, safe=False)) == repr(cv)


def test_cross_validate_and_grid_search():
    X, y = make_data(n_dialogues=60)
    y_llm = np.full((len(X), 3), 1 / 3)
    cv = LabelledGroupKFold(4)
    scores = cross_validate(
        LabelledTextClassifier(),
        X,
        y,
        cv=cv,
        params={"y_llm": y_llm},
        scoring="accuracy",
        return_estimator=True,
        error_score="raise",
    )
    assert (scores["test_score"] > 0.8).all()
    sizes = [len(train) for train, _ in cv.split(X, y)]
    assert [e.n_rows_ for e in scores["estimator"]] == sizes
    assert [e.n_llm_ for e in scores["estimator"]] == sizes

    search = GridSearchCV(LabelledTextClassifier(), {"C": [1e-6, 1.0]}, cv=cv, n_jobs=1)
    search.fit(X, y, y_llm=y_llm)
    assert search.best_params_ == {"C": 1.0}
    assert search.best_estimator_.n_rows_ == len(X)


def test_groups_are_requested_by_default():
    X, y = make_data()
    clf = DummyClassifier(strategy="constant", constant="neg")
    customer = X["dialogue_id"].str[1:].astype(int) // 2
    cv = LabelledGroupKFold(3)
    y_full = np.where(pd.isna(y), "neg", y)
    y_full[0] = y_full[-1] = "pos"
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        routed = cross_validate(
            clf, X, y_full, cv=cv, params={"groups": customer}, return_indices=True
        )
        unrouted = cross_validate(
            clf,
            X,
            y_full,
            cv=cv,
            params={},  # 1.6.0 takes no None with routing on
            scoring=masked_scorer("accuracy"),
            return_indices=True,
        )
    for train, test in zip(*routed["indices"].values(), strict=True):
        assert not set(customer[train]) & set(customer[test])
    for (_, test), other in zip(cv.split(X, y_full), unrouted["indices"]["test"], strict=True):
        assert_array_equal(test, other)
