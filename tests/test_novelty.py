"""Utterances unlike those of training: distances, scores and p-values."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import roc_auc_score

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
