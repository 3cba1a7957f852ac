"""Utterances unlike those of training: distances, scores and p-values."""

import pickle
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from students import student

from sklearn_dialpref.escalation import EscalatingClassifier, rejecting
from sklearn_dialpref.escalation.novelty import ClassNeighbours, novelty_scores, p_values


def blobs(centres, n_each=40, seed=0, n_dimensions=12):
    """Utterances around centres, which differ in two dimensions only."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(len(centres) * n_each, n_dimensions))
    points[:, 2:] *= 5  # loud dimensions that tell nothing
    points[:, :2] += np.repeat(centres, n_each, axis=0)
    return points.astype(np.float32), np.repeat(np.arange(len(centres)), n_each)


CENTRES = [[0, 0], [8, 0], [0, 8]]


def sure(labels, n_classes=3):
    return np.eye(n_classes)[labels]


def test_the_fifth_nearest_of_each_class():
    # in one dimension, with one and the same spread within the classes
    first, second = [0.0, 1, 2, 3, 4, 5], [20.0, 21, 22, 23, 24, 25]
    X = np.array(first + second)[:, None]
    neighbours = ClassNeighbours.fit(X, np.repeat([0, 1], 6), 2)
    unit = abs(neighbours.points[0, 0] - neighbours.points[1, 0])
    assert unit == pytest.approx(1 / np.std(first))
    assert_allclose(neighbours.distances(np.array([[0.0], [10.0]])) / unit, [[4, 24], [9, 14]])


def test_the_score_is_the_expected_distance_and_the_entropy():
    X, y = blobs(CENTRES)
    neighbours = ClassNeighbours.fit(X, y, 3)
    new, proba = X[[0, 50]], np.array([[0.2, 0.8, 0.0], [0.0, 1.0, 0.0]])
    d = neighbours.distances(new)
    entropy = -0.2 * np.log(0.2) - 0.8 * np.log(0.8)
    expected = [0.2 * d[0, 0] + 0.8 * d[0, 1] + entropy, d[1, 1]]
    assert_allclose(novelty_scores(neighbours, new, proba), expected)


def test_an_unknown_class_among_dimensions_that_tell_nothing():
    X, y = blobs(CENTRES)
    known, labels = blobs(CENTRES, seed=1)
    unknown, _ = blobs([[8, 8]], seed=2)
    neighbours = ClassNeighbours.fit(X, y, 3)
    new = np.vstack([known, unknown])
    proba = sure(np.r_[labels, np.ones(40, dtype=int)])
    scores = novelty_scores(neighbours, new, proba)
    is_unknown = np.arange(len(new)) >= len(known)
    assert roc_auc_score(is_unknown, scores) > 0.95
    plain = np.linalg.norm(new[:, None] - X[None], axis=2).min(axis=1)
    assert roc_auc_score(is_unknown, plain) < 0.8


def test_the_order_of_utterances_does_not_matter():
    X, y = blobs(CENTRES)
    order = np.random.default_rng(0).permutation(len(X))
    one = ClassNeighbours.fit(X, y, 3).distances(X)
    assert_allclose(ClassNeighbours.fit(X[order], y[order], 3).distances(X), one, rtol=1e-8)


def test_classes_of_one_utterance_and_of_none():
    X, y = blobs(CENTRES)
    rare = np.array([[30.0, 30, *[0] * 10]], dtype=np.float32)
    neighbours = ClassNeighbours.fit(np.vstack([X, rare]), np.r_[y, 4], 5)
    d = neighbours.distances(np.vstack([rare, X[:1]]))
    assert d[0, 4] == pytest.approx(0, abs=1e-5)
    assert_array_equal(d[:, 3], d[:, [0, 1, 2, 4]].max(axis=1))


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1], [0, 0, 2]])
def test_too_few_to_learn_a_space(labels):
    X = np.array([[0.0, 0], [3, 4], [0, 1]])
    neighbours = ClassNeighbours.fit(X, np.array(labels), 3)
    assert neighbours.projection is None
    nearest = neighbours.distances(X[:1]).min()
    assert nearest == {(0, 1, 2): 0, (1, 1, 1): 5, (0, 0, 2): 1}[tuple(labels)]


def test_equal_utterances():
    X = np.array([[0.0, 1]] * 3 + [[1.0, 0]] * 3)
    neighbours = ClassNeighbours.fit(X, np.repeat([0, 1], 3), 2)
    d = neighbours.distances(np.array([[0.0, 1], [5.0, 5]]))
    assert np.isfinite(d).all()
    assert d[0, 0] < d[1, 0]


def test_p_values():
    known = np.array([1.0, 2, 2, 3])
    assert_allclose(p_values(np.array([0.0, 2, 2.5, 9]), known), [1, 0.8, 0.4, 0.2])
    rng = np.random.default_rng(0)
    shares = [
        np.mean(p_values(rng.normal(size=50), np.sort(rng.normal(size=99))) <= 0.05)
        for _ in range(400)
    ]
    assert np.mean(shares) == pytest.approx(0.05, abs=0.005)


def test_no_matrix_of_all_pairs():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8_000, 4)).astype(np.float32), np.resize([0, 1, 2], 8_000)
    neighbours = ClassNeighbours.fit(X, y, 3)
    tracemalloc.start()
    neighbours.distances(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250 * 2**20 < 8 * len(X) ** 2


# -- rejecting ------------------------------------------------------------------------------

NAMES = np.array(["book", "cancel", "pay"])
KNOWN = [*CENTRES, [8, 8]]


class Embedding(ClassifierMixin, BaseEstimator):
    """A student whose embeddings are the features."""

    def fit(self, X, y):
        self._model = LogisticRegression().fit(self.embed(X), y)
        self.classes_ = self._model.classes_
        return self

    def embed(self, X):
        return X.filter(like="f").to_numpy(np.float32)

    def predict_proba(self, X):
        return self._model.predict_proba(self.embed(X))

    def predict(self, X):
        return self._model.predict(self.embed(X))


class Counting(Embedding):
    """A teacher that counts what it is asked about."""

    def predict_proba(self, X, asked=None):
        self.asked_ = asked
        return super().predict_proba(X)


def chats(centres=CENTRES, seed=0, n_each=100):
    """Dialogues of ten utterances, whose intents are in turn; the fourth is not known."""
    points, y = blobs(centres, n_each, seed)
    order = np.random.default_rng(seed).permutation(len(y))
    X = pd.DataFrame(points[order], columns=[f"f{n}" for n in range(points.shape[1])])
    X.insert(0, "dialogue_id", np.arange(len(y)) // 10)
    X.insert(1, "turn", np.arange(len(y)) % 10)
    return X, y[order]


def labels_of(y):
    return np.append(NAMES, "refund")[y].astype(object)


def test_unknown_utterances_get_no_answer():
    X, y = chats()
    clf = EscalatingClassifier(Embedding(), reject_threshold=0.05).fit(X, labels_of(y))
    new, truth = chats(KNOWN, seed=1)
    labels, novelty = clf.predict(new), clf.novelty(new)
    rejected = np.equal(labels, None)
    assert 0.01 < rejected[truth < 3].mean() < 0.08
    assert rejected[truth == 3].mean() > 0.9
    assert_array_equal(rejected, novelty >= 0.95)
    assert_array_equal(rejected, clf.escalates(new))
    assert roc_auc_score(truth == 3, novelty) > 0.97
    assert np.all((novelty >= 0) & (novelty < 1))
    assert clf.score(new, labels_of(truth)) > clf.student_.score(new, labels_of(truth)) + 0.15
    assert_allclose(clf.predict_proba(new), clf.student_.predict_proba(new))
    assert_array_equal(pickle.loads(pickle.dumps(clf)).predict(new), labels)


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.3])
def test_no_more_known_utterances_are_rejected_than_wanted(threshold):
    shares = []
    for seed in range(6):
        X, y = chats(seed=seed)
        clf = EscalatingClassifier(Embedding(), reject_threshold=threshold).fit(X, labels_of(y))
        new = chats(seed=100 + seed, n_each=300)[0]
        shares.append(np.equal(clf.predict(new), None).mean())
    assert np.mean(shares) < 1.15 * threshold + 0.005


def test_the_teacher_is_not_asked_about_unknown_utterances():
    X, y = chats()
    teacher = Counting().fit(X, labels_of(y))
    clf = EscalatingClassifier(Embedding(), teacher, max_share=1, reject_threshold=0.05)
    clf.fit(X, labels_of(np.where(np.arange(len(y)) % 3, y, (y + 1) % 3)))
    new, _ = chats(KNOWN, seed=1)
    labels, asked = clf.predict(new), clf.escalates(new)
    rejected = np.equal(labels, None)
    assert rejected.any()
    assert not (asked & rejected).any()
    assert teacher.asked_ is None or not (teacher.asked_ & rejected).any()
    assert clf.expected_cost(new).n_asked == asked.sum()


def test_promises_are_of_what_is_answered():
    X, y = chats(KNOWN)  # those of the fourth class have labels of others, which nobody can know
    labels = labels_of(np.where(y == 3, np.random.default_rng(0).integers(0, 3, len(y)), y))
    y_human = np.where(np.random.default_rng(1).random(len(y)) < 0.5, labels, None)
    parameters = {"target_accuracy": 0.5, "reject_threshold": 0.3}
    clf = EscalatingClassifier(Embedding(), **parameters).fit(X, y_human)
    n_labels = sum(label is not None for label in y_human)
    assert 0.6 * n_labels < clf.promise_.n_labels < 0.8 * n_labels


def test_results_do_not_depend_on_the_order_of_rows():
    X, y = chats()
    order = np.random.default_rng(0).permutation(len(X))
    one = EscalatingClassifier(Embedding(), reject_threshold=0.05).fit(X, labels_of(y))
    other = EscalatingClassifier(Embedding(), reject_threshold=0.05)
    other.fit(X.iloc[order], labels_of(y)[order])
    assert_allclose(other.novelty(X), one.novelty(X), atol=1 / len(X))


def test_utterances_of_the_same_dialogue_are_left_out():
    # each dialogue speaks of one thing only, and each utterance has a twin in it
    rng = np.random.default_rng(0)
    topics = np.repeat(rng.normal(size=(40, 6)) * 20, 5, axis=0)
    X = pd.DataFrame(topics + rng.normal(size=topics.shape), columns=[f"f{n}" for n in range(6)])
    X.insert(0, "dialogue_id", np.repeat(np.arange(40), 5))
    y = labels_of(np.resize([0, 1, 2], 200))
    clf = EscalatingClassifier(Embedding(), reject_threshold=0.1).fit(X, y)
    other = np.repeat(rng.normal(size=(400, 6)) * 20, 1, axis=0)
    new = pd.DataFrame(other, columns=[f"f{n}" for n in range(6)])
    assert np.equal(clf.predict(new), None).mean() < 0.2


def test_llm_labels_make_an_utterance_known(tiny_encoder):
    texts = ["where is my parcel", "thanks", "refund the parcel", "hello hi", "hi", "my refund"]
    X = pd.DataFrame({"dialogue_id": np.arange(60) // 6, "text": np.resize(texts, 60)})
    y_human = np.where(np.arange(60) < 24, np.resize(["ask", "greet"], 60), None)
    y_llm = np.resize(["ask", "greet"], 60)
    clf = EscalatingClassifier(student(tiny_encoder, max_epochs=1), reject_threshold=0.1, cv=2)
    clf.fit(X, y_human, y_llm)
    assert len(clf._rejection.known) == 60
    y_llm = np.where(np.arange(60) < 40, y_llm, None)
    assert len(clf.fit(X, y_human, y_llm)._rejection.known) == 40
    assert clf.novelty(["where is my parcel"]).shape == (1,)


def test_many_rows_are_taken_in_part(monkeypatch):
    X, y = chats()
    whole = EscalatingClassifier(Embedding(), reject_threshold=0.05).fit(X, labels_of(y))
    monkeypatch.setattr(rejecting, "PART", 7)
    parts = EscalatingClassifier(Embedding(), reject_threshold=0.05).fit(X, labels_of(y))
    assert_allclose(parts.novelty(X), whole.novelty(X))
    monkeypatch.setattr(rejecting, "MOST_ROWS", 150)
    some = EscalatingClassifier(Embedding(), reject_threshold=0.05).fit(X, labels_of(y))
    assert len(some._rejection.known) == len(some._rejection.neighbours.points) == 150
    new, truth = chats(KNOWN, seed=1)
    assert roc_auc_score(truth == 3, some.novelty(new)) > 0.95


def test_what_is_refused():
    X, y = chats(n_each=20)
    plain = EscalatingClassifier(LogisticRegression(), reject_threshold=0.1)
    with pytest.raises(TypeError, match=r"needs a student with embed\(X\).*LogisticRegression"):
        plain.fit(X.filter(like="f"), labels_of(y))
    with pytest.raises(ValueError, match="'reject_threshold' parameter"):
        EscalatingClassifier(Embedding(), reject_threshold=1.0).fit(X, labels_of(y))
    teacher = Embedding().fit(X, labels_of(y))
    with pytest.raises(ValueError, match="set either max_share"):
        EscalatingClassifier(Embedding(), teacher, reject_threshold=0.1).fit(X, labels_of(y))
    without = EscalatingClassifier(Embedding(), max_share=0.1).fit(X, labels_of(y))
    with pytest.raises(ValueError, match="learned with reject_threshold"):
        without.novelty(X)
    clf = EscalatingClassifier(Embedding(), reject_threshold=0.01)
    with pytest.warns(UserWarning, match="only 60 utterances have a label; label at least 99"):
        clf.fit(X, labels_of(y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.set_params(reject_threshold=0.04).fit(X, labels_of(y))
