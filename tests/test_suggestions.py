"""What people should label next."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from students import student

from sklearn_dialpref.datasets import make_dialogues
from sklearn_dialpref.inspection.suggestions import suggest_annotations

RANDOM = "random, for honest estimates"


class Known(ClassifierMixin, BaseEstimator):
    """A classifier that knows what it answers by text, and counts the rows that it embeds."""

    def __init__(self, proba, classes=("a", "b", "c"), embeddings=None):
        self.proba, self.classes, self.embeddings = proba, classes, embeddings
        self.classes_ = np.array(classes)
        self.embedded = 0
        if embeddings is not None:
            self.embed = self._embed

    def predict_proba(self, X):
        return np.array([self.proba[text] for text in X])

    def _embed(self, X):
        self.embedded += len(X)
        return np.array([self.embeddings[text] for text in X], dtype=np.float32)


def texts(n, word="text"):
    return np.array([f"{word} {place}" for place in range(n)], dtype=object)


def draws(n, seed=0):
    """Probabilities of distinct texts."""
    X = texts(n)
    return X, dict(zip(X, np.random.default_rng(seed).dirichlet([1, 1, 1], n), strict=True))


@pytest.fixture(scope="module")
def data():
    return make_dialogues(n_dialogues=40, n_turns=5, human_fraction=0.3, random_state=0)


@pytest.fixture(scope="module")
def clf(tiny_encoder, data):
    return student(tiny_encoder, max_epochs=1).fit(data.X, data.y_human, data.y_llm)


def ask(clf, data, **options):
    return suggest_annotations(
        clf, data.X, data.y_human, data.y_llm, **{"n": 20, "random_state": 0, **options}
    )


def content(X, rows):
    return [tuple(row) for row in X.iloc[rows][["dialogue_id", "turn", "text"]].to_numpy()]


# -- utterances -----------------------------------------------------------------------------


def test_each_row_is_unlabelled_and_has_its_reason(clf, data):
    suggestions = ask(clf, data)
    assert len(suggestions) == len(set(suggestions.rows)) == 20
    assert pd.isna(data.y_human.to_numpy()[suggestions.rows]).all()
    assert all(isinstance(reason, str) and reason for reason in suggestions.reason)
    assert np.isfinite(suggestions.score).all()
    frame = suggestions.frame()
    assert frame.columns.tolist() == ["row", "reason", "score", "is_random"]
    assert frame["row"].tolist() == suggestions.rows.tolist()


def test_a_share_is_random_and_spread_over_the_batch(clf, data):
    suggestions = ask(clf, data, n=40)
    assert (suggestions.is_random == (suggestions.reason == RANDOM)).all()
    assert suggestions.is_random.sum() == 4
    assert suggestions.is_random[:20].sum() == 2
    other = ask(clf, data, n=40, random_state=1)
    assert set(suggestions.rows[suggestions.is_random]) != set(other.rows[other.is_random])


def test_random_rows_are_like_all_that_have_no_label():
    X, proba = draws(200)
    drawn = np.concatenate(
        [
            suggestions.rows[suggestions.is_random]
            for seed in range(100)
            for suggestions in [suggest_annotations(Known(proba), X, n=20, random_state=seed)]
        ]
    )
    unsure = np.array([1 - max(proba[text]) for text in X])
    assert abs(unsure[drawn].mean() - unsure.mean()) < 0.04


def test_the_same_arguments_give_the_same_suggestions(clf, data):
    first, second = ask(clf, data), ask(clf, data)
    assert first.frame().equals(second.frame())


def test_the_order_of_the_rows_does_not_matter(clf, data):
    order = np.random.default_rng(0).permutation(len(data.X))
    X, y, llm = data.X.iloc[order], data.y_human.iloc[order], data.y_llm[order]
    for unit, n in (("utterance", 20), ("dialogue", 5)):
        given = ask(clf, data, unit=unit, n=n)
        shuffled = suggest_annotations(clf, X, y, llm, n=n, unit=unit, random_state=0)
        assert content(X, shuffled.rows) == content(data.X, given.rows)
        assert shuffled.reason.tolist() == given.reason.tolist()


def test_a_text_is_suggested_once_and_not_if_it_is_labelled():
    X = np.array(["yes", "no", "no", "maybe", "yes", "well"], dtype=object)
    proba = {
        "yes": [0.4, 0.3, 0.3],
        "no": [0, 0.9, 0.1],
        "maybe": [0.9, 0.1, 0],
        "well": [1, 0, 0],
    }
    y = np.array(["a", None, None, None, None, None], dtype=object)
    suggestions = suggest_annotations(Known(proba), X, y, n=3, random_state=0)
    assert sorted(X[suggestions.rows]) == ["maybe", "no", "well"]


def test_all_that_is_new_comes_before_what_is_labelled_elsewhere():
    X = np.array(["yes"] * 90 + list(texts(10)), dtype=object)
    y = np.array(["a"] + [None] * 99, dtype=object)
    proba = {text: [0.4, 0.3, 0.3] for text in X}
    suggestions = suggest_annotations(Known(proba), X, y, n=10, random_state=0)
    assert sorted(suggestions.rows) == list(range(90, 100))


def test_doubt_about_rare_classes_counts_more():
    X = texts(60)
    proba = {text: [1, 0, 0] for text in X}
    proba[X[58]], proba[X[59]] = [0.5, 0.5, 0], [0.5, 0, 0.5]
    y = np.array(["a"] * 20 + ["b"] * 20 + ["c"] + [None] * 19, dtype=object)
    suggestions = suggest_annotations(Known(proba), X, y, n=2, random_state=0)
    score = dict(zip(suggestions.rows, suggestions.score, strict=True))
    # 44 labels, each class counted once more: shares of 21, 21 and 2
    assert score[59] == pytest.approx(0.25 * ((44 / 21) ** 0.5 + (44 / 2) ** 0.5))


def test_precomputed_features_are_suggested_once_too():
    X = np.repeat(np.random.default_rng(0).normal(size=(10, 3)), 2, axis=0)
    clf = student(max_epochs=1).fit(X, np.arange(20) // 2 % 2)
    with pytest.warns(UserWarning, match="only 10"):
        suggestions = suggest_annotations(clf, X, n=15, random_state=0)
    assert sorted(suggestions.rows // 2) == list(range(10))


def test_more_than_there_are_gives_all_with_a_warning(clf, data):
    missing = pd.isna(data.y_human.to_numpy())
    labelled = set(data.X["text"][~missing])
    expected = {text for text in data.X["text"][missing] if text not in labelled}
    with pytest.warns(UserWarning, match=f"only {len(expected)} utterances"):
        suggestions = ask(clf, data, n=1000)
    assert set(data.X["text"].iloc[suggestions.rows]) == expected


def test_nothing_is_left(clf, data):
    y = np.full(len(data.X), clf.classes_[0])
    with pytest.warns(UserWarning, match="only 0 utterances"):
        assert len(suggest_annotations(clf, data.X, y, n=3)) == 0


def test_unsure_rows_come_first_with_the_classes_in_question():
    X = texts(100)
    proba = {text: [0.9, 0.06, 0.04] for text in X}
    for text in X[:40]:
        proba[text] = [0.45, 0.44, 0.11]
    suggestions = suggest_annotations(Known(proba), X, n=4, random_state=0)
    chosen = ~suggestions.is_random
    assert set(suggestions.rows[chosen]) <= set(range(40))
    assert set(suggestions.reason[chosen]) == {"uncertain between 'a' and 'b'"}


def test_a_rare_class_is_named():
    X = texts(100)
    proba = {text: [0.7, 0.29, 0.01] for text in X}
    proba[X[7]] = [0.3, 0.2, 0.5]
    suggestions = suggest_annotations(Known(proba), X, n=3, random_state=0)
    reason = dict(zip(suggestions.rows, suggestions.reason, strict=True))
    assert reason[7] == "likely of the rare class 'c'"


def test_a_teacher_that_differs_is_named():
    X = texts(20)
    proba = {text: [0.5, 0.3, 0.2] for text in X}
    y_llm = np.where(np.arange(20) < 10, "b", "a")
    suggestions = suggest_annotations(Known(proba), X, None, y_llm, n=20, random_state=0)
    for row, reason, is_random in zip(
        suggestions.rows, suggestions.reason, suggestions.is_random, strict=True
    ):
        if not is_random:
            assert reason.startswith("teacher and student differ") == (row < 10)


def test_what_is_unlike_all_labelled_rows_is_named():
    X = texts(100)
    rng = np.random.default_rng(0)
    embeddings = dict(zip(X, rng.normal(size=(100, 4)), strict=True))
    proba = {text: [0.5, 0.3, 0.2] for text in X}
    embeddings[X[99]] = np.full(4, 9.0)
    y = np.where(np.arange(100) < 90, "a", None)
    suggestions = suggest_annotations(
        Known(proba, embeddings=embeddings), X, y, n=10, random_state=1
    )
    reason = dict(zip(suggestions.rows, suggestions.reason, strict=True))
    assert reason[99] == "unlike anything labelled"


def test_a_batch_is_diverse():
    X = texts(50)
    rng = np.random.default_rng(0)
    points = rng.normal(scale=0.01, size=(50, 2)) + [[float(row == 3), 0] for row in range(50)]
    # three of the four least sure ones say nearly the same
    proba = {text: [0.5, 0.3, 0.2] if row > 3 else [0.4, 0.3, 0.3] for row, text in enumerate(X)}
    clf = Known(proba, embeddings=dict(zip(X, points, strict=True)))
    suggestions = suggest_annotations(clf, X, n=2, random_state=0)
    assert 3 in suggestions.rows
    assert suggestions.rows.min() < 3


def test_few_rows_are_embedded():
    X, proba = draws(2000)
    clf = Known(proba, embeddings={text: proba[text] for text in X})
    suggest_annotations(clf, X, n=10, random_state=0)
    assert 10 <= clf.embedded <= 200


# -- cold start, other classifiers ----------------------------------------------------------


@pytest.mark.parametrize("with_llm", [True, False])
def test_it_works_before_the_first_human_label(tiny_encoder, data, with_llm):
    clf = student(tiny_encoder, max_epochs=1).fit(data.X, None, data.y_llm)
    y_llm = data.y_llm if with_llm else None
    for y_human in (None, np.full(len(data.X), None)):
        suggestions = suggest_annotations(clf, data.X, y_human, y_llm, n=10, random_state=0)
        assert len(suggestions) == 10


@pytest.mark.parametrize("with_human", [True, False])
def test_several_labels_of_an_utterance(tiny_encoder, data, with_human):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=(len(data.X), 3)).astype(float)
    y[50:] = np.nan
    clf = student(tiny_encoder, max_epochs=1).fit(data.X, y)
    y_llm = rng.random((len(data.X), 3))
    suggestions = suggest_annotations(
        clf, data.X, y if with_human else None, y_llm, n=10, random_state=0
    )
    assert len(suggestions) == 10
    assert not with_human or suggestions.rows.min() >= 50
    assert {reason.split(" ")[0] for reason in suggestions.reason} <= {
        "random,", "uncertain", "likely", "teacher", "unlike",
    }  # fmt: skip


def test_several_labels_name_the_one_in_question():
    X = texts(50)
    proba = {text: [0.95, 0.9, 0.02] for text in X}
    proba[X[3]] = [0.9, 0.5, 0.02]
    suggestions = suggest_annotations(Known(proba), X, n=5, random_state=0)
    reason = dict(zip(suggestions.rows, suggestions.reason, strict=True))
    assert reason[3] == "uncertain about 'b'"


def test_a_pipeline_of_scikit_learn(data):
    X = data.X["text"].tolist()
    y = np.where(pd.isna(data.y_human), None, data.y_human)
    known = np.flatnonzero([label is not None for label in y])
    clf = make_pipeline(TfidfVectorizer(), LogisticRegression())
    clf.fit([X[row] for row in known], y[known].astype(str))
    suggestions = suggest_annotations(clf, X, y, n=10, random_state=0)
    assert all(y[row] is None for row in suggestions.rows)


def test_a_pipeline_embeds_by_its_last_step(clf, data):
    pipeline = make_pipeline(FunctionTransformer(), clf)
    assert ask(pipeline, data).frame().equals(ask(clf, data).frame())


# -- dialogues ------------------------------------------------------------------------------


def test_whole_dialogues_come_in_the_order_of_their_turns(clf, data):
    suggestions = ask(clf, data, unit="dialogue", n=5)
    X = data.X.iloc[suggestions.rows]
    ids = X["dialogue_id"].to_numpy()
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    assert len(starts) == len(set(ids)) == 5
    unlabelled = pd.isna(data.y_human.to_numpy())
    for dialogue in set(ids):
        rows = np.flatnonzero((data.X["dialogue_id"] == dialogue).to_numpy() & unlabelled)
        assert set(rows) == set(suggestions.rows[ids == dialogue])
        assert X["turn"][ids == dialogue].is_monotonic_increasing
        assert len(set(suggestions.is_random[ids == dialogue])) == 1


def test_more_dialogues_than_there_are(clf, data):
    missing = pd.isna(data.y_human.to_numpy())
    n_dialogues = data.X["dialogue_id"][missing].nunique()
    with pytest.warns(UserWarning, match=f"only {n_dialogues} dialogues"):
        suggestions = ask(clf, data, unit="dialogue", n=1000)
    assert len(suggestions) == missing.sum()


# -- refusals -------------------------------------------------------------------------------


def test_it_needs_a_fit(data):
    with pytest.raises(NotFittedError):
        suggest_annotations(student(), data.X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be a whole number of at least 1, got 0"),
        ({"n": 2.5}, "n must be a whole number of at least 1, got 2.5"),
        ({"n": True}, "n must be a whole number of at least 1, got True"),
        ({"unit": "word"}, "unit must be 'utterance' or 'dialogue', got 'word'"),
    ],
)
def test_wrong_options(clf, data, options, message):
    with pytest.raises(ValueError, match=message):
        ask(clf, data, **options)


def test_dialogues_of_what_names_none():
    X, proba = draws(10)
    with pytest.raises(ValueError, match="X names no dialogues"):
        suggest_annotations(Known(proba), X, unit="dialogue")


def test_labels_of_another_length():
    X, proba = draws(10)
    with pytest.raises(ValueError, match="X has 10 rows but y_human has 3 rows"):
        suggest_annotations(Known(proba), X, [None, None, None])


def test_a_classifier_without_probabilities():
    X, _ = draws(10)
    with pytest.raises(TypeError, match="predict_proba"):
        suggest_annotations(object(), X)


def test_probabilities_that_are_not_numbers():
    X, proba = draws(10)
    proba[X[4]] = [np.nan, 0.5, 0.5]
    with pytest.raises(ValueError, match="row 4"):
        suggest_annotations(Known(proba), X)
