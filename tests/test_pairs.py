"""Pairs of utterances: all of them in short dialogues, a linear sample in long ones."""

from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_dialpref.pairs import dialogue_pairs


def as_set(pairs):
    """Unordered pairs; fails if one is there twice."""
    found = [frozenset(pair) for pair in zip(*(side.tolist() for side in pairs), strict=True)]
    assert len(set(found)) == len(found)
    return set(found)


def brute_force(group):
    return {frozenset(p) for p in combinations(range(len(group)), 2) if len({*group[list(p)]}) < 2}


@pytest.mark.parametrize("seed", range(5))
def test_all_pairs_of_interleaved_dialogues(seed):
    group = np.random.RandomState(seed).randint(-3, 6, size=60)
    assert as_set(dialogue_pairs(group)) == brute_force(group)


@pytest.mark.parametrize("group", [[], [3], [0, 1, 2]])
def test_no_pairs(group):
    i, j = dialogue_pairs(np.array(group, dtype=np.int64))
    assert i.shape == j.shape == (0,)
    assert i.dtype == j.dtype == np.int64


def test_a_dialogue_at_the_limit_gives_all_pairs():
    group = np.zeros(9, dtype=int)
    assert as_set(dialogue_pairs(group, max_partners=8)) == brute_force(group)


@pytest.mark.parametrize("size", [5, 6, 10, 11, 300])
@pytest.mark.parametrize("max_partners", [2, 3])
def test_a_long_dialogue_gives_each_row_as_many_partners(size, max_partners):
    group = np.zeros(size, dtype=int)
    i, j = dialogue_pairs(group, max_partners=max_partners, random_state=0)
    assert as_set((i, j)) <= brute_force(group)
    assert_array_equal(np.bincount(np.r_[i, j], minlength=size), 2)


def test_pairs_grow_linearly():
    counts = [len(dialogue_pairs(np.zeros(n, int), random_state=0)[0]) for n in (1000, 2000)]
    assert counts == [32_000, 64_000]


def test_long_and_short_dialogues_together():
    group = np.random.RandomState(0).permutation(np.repeat([7, 8, 9], [200, 5, 1]))
    found = as_set(dialogue_pairs(group, max_partners=10, random_state=0))
    assert found <= brute_force(group)
    short = {pair for pair in brute_force(group) if group[min(pair)] == 8}
    assert short <= found
    assert len(found) == 200 * 5 + 10


def test_seed():
    group = np.zeros(200, dtype=int)
    first, again, other = (dialogue_pairs(group, random_state=s) for s in (0, 0, 1))
    assert_array_equal(first, again)
    assert as_set(first) != as_set(other)


def test_max_partners_is_checked():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        dialogue_pairs([0, 0], max_partners=1)
