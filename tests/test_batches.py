"""Segments of dialogues, and batches that cover every row once within a budget."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sklearn_dialpref._training.batches import (
    CPU_CHUNK,
    MAX_SEGMENT,
    TOKENS_PER_UTTERANCE,
    DialogueBatches,
    Rows,
    segments,
)

NAN = float("nan")


class CharacterEncoder:
    """Stands in for a text encoder: a text's token is its length."""

    def __init__(self, device):
        self.device = torch.device(device)

    def tokens(self, texts):
        return {"input_ids": torch.tensor([[len(text)] for text in texts])}


def make_rows(sizes, seed=0, multilabel=False):
    rng = np.random.RandomState(seed)
    n = sum(sizes)
    human = rng.randint(-1, 2, size=n)
    return Rows(
        group=np.repeat(np.arange(len(sizes)), sizes),
        human=torch.eye(2)[human.clip(min=0)] if multilabel else torch.from_numpy(human),
        scores=torch.from_numpy(rng.dirichlet([1, 1], size=n)).float(),
        features=torch.arange(n)[:, None].float(),
    )


def make_batches(rows, budget, *, seed=None, limit=None, **others):
    segment = segments(rows.group, rows.cost(np.arange(len(rows.group))), limit or budget)
    rng = None if seed is None else np.random.RandomState(seed)
    options = {"human": False, "rng": rng, "encoder": None} | others
    return DialogueBatches(rows, segment, budget, **options)


# -- segments -------------------------------------------------------------------------------


def test_dialogues_within_the_limit_stay_whole():
    group = np.repeat([4, 2, 9, 7], [3, 10, 1, 8])
    assert_array_equal(segments(group, np.ones(22), 10), np.repeat(np.arange(4), [3, 10, 1, 8]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [1, 5.5, 40])
def test_segments_keep_the_limit(seed, limit):
    rng = np.random.RandomState(seed)
    group = np.repeat(np.arange(20), rng.randint(1, 30, size=20))
    cost = rng.choice([1.0, 1.5, 4.0, 9.0], size=len(group))
    segment = segments(group, cost, limit)
    assert set(np.diff(segment)) <= {0, 1}
    stretches = [np.flatnonzero(segment == number) for number in range(segment[-1] + 1)]
    for rows in stretches:
        assert len(set(group[rows])) == 1
        assert len(rows) == 1 or cost[rows].sum() <= limit
    for before, after in pairwise(stretches):  # no cut that is not needed
        if group[before[0]] == group[after[0]]:
            assert cost[before].sum() + cost[after[0]] > limit


def test_long_dialogues_are_cut():
    segment = segments(np.zeros(150, int), np.ones(150), 1000)
    assert_array_equal(np.bincount(segment), [MAX_SEGMENT, MAX_SEGMENT, 150 - 2 * MAX_SEGMENT])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [1, 5.5, 40])
def test_segments_of_at_least_two_rows_where_there_are_two(seed, limit):
    rng = np.random.RandomState(seed)
    group = np.repeat(np.arange(20), rng.randint(1, 9, size=20))
    cost = rng.choice([1.0, 1.5, 4.0, 9.0], size=len(group))
    segment = segments(group, cost, limit, least=2)
    for number in range(segment[-1] + 1):
        rows = np.flatnonzero(segment == number)
        assert len(set(group[rows])) == 1
        assert len(rows) >= min(2, (group == group[rows[0]]).sum())
        assert len(rows) <= 3 or cost[rows[:-1]].sum() <= limit  # two, and a last one left over


def test_a_last_row_stays_with_a_long_dialogue():
    segment = segments(np.zeros(MAX_SEGMENT + 1, int), np.ones(MAX_SEGMENT + 1), 1000, least=2)
    assert set(segment) == {0}


def test_no_rows_no_segments():
    assert segments(np.empty(0, np.int64), np.empty(0), 8).shape == (0,)


# -- batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("budget", [1, 7, 32, 1000])
def test_a_pass_covers_every_row_once_within_the_budget(seed, budget):
    rows = make_rows(np.random.RandomState(1).randint(1, 12, size=40))
    batches = make_batches(rows, budget, seed=seed)
    for _ in range(2):
        found = list(batches.row_batches())
        assert_array_equal(
            np.sort(np.concatenate([batch for batch, _ in found])), np.arange(len(rows.group))
        )
        assert max(len(batch) for batch, _ in found) <= budget
        if seed is None:
            assert len(found) == batches.n_batches()
        elif budget == 1000:
            assert len(found) == batches.n_batches() == 1


def test_a_segment_over_the_budget_is_a_batch_of_its_own():
    batches = make_batches(make_rows([2, 9, 3]), budget=4, limit=20)
    assert [len(batch) for batch, _ in batches.row_batches()] == [2, 9, 3]
    assert batches.n_batches() == 3


def test_long_texts_cost_more():
    tokens = np.array([1, TOKENS_PER_UTTERANCE, 3 * TOKENS_PER_UTTERANCE])
    rows = Rows(
        group=np.zeros(4, int),
        human=torch.zeros(4, dtype=torch.long),
        scores=torch.zeros(4, 2),
        texts=["a", "bb", "ccc"],
        index=np.array([[0, -1], [1, -1], [2, -1], [2, 1]]),
        lengths=tokens,
    )
    assert rows.cost(np.arange(4)).tolist() == [1, 1, 3, 4]
    batches = make_batches(rows, budget=5)
    assert [batch.tolist() for batch, _ in batches.row_batches()] == [[0, 1, 2], [3]]


def test_segments_in_a_batch_are_whole_and_in_order():
    rows = make_rows([5, 3, 4, 6])
    for batch, segment in make_batches(rows, 10, seed=3).row_batches():
        assert set(np.diff(segment)) <= {0, 1}
        for number in set(segment):
            chosen = batch[segment == number]
            assert_array_equal(chosen, np.flatnonzero(rows.group == rows.group[chosen[0]]))


def test_passes_are_shuffled_by_the_seed():
    def two_passes(seed):
        batches = make_batches(make_rows([3] * 20), 9, seed=seed)
        return [np.concatenate([b for b, _ in batches.row_batches()]).tolist() for _ in "ab"]

    first = two_passes(0)
    assert first[0] != first[1]
    assert two_passes(0) == first
    assert two_passes(1) != first


def test_rows_without_a_segment_take_no_part():
    rows = make_rows([3, 3])
    segment = np.array([0, -1, 0, -1, 1, 1])
    batches = DialogueBatches(rows, segment, 8, human=False, rng=None, encoder=None)
    assert [batch.tolist() for batch, _ in batches.row_batches()] == [[0, 2, 4, 5]]


def test_nobody_takes_part():
    rows = make_rows([3])
    batches = DialogueBatches(rows, np.full(3, -1), 8, human=False, rng=None, encoder=None)
    assert list(batches) == []
    assert batches.n_batches() == 0


# -- what a batch holds ---------------------------------------------------------------------


def test_llm_batches_hold_scores_and_pairs_of_a_dialogue():
    rows = make_rows([3, 1, 4, 2])
    n_pairs = 0
    for inputs, targets in make_batches(rows, 6, seed=0):
        index = inputs["features"].ravel().long()
        assert torch.equal(targets["scores"], rows.scores[index])
        assert len(targets["human"]) == 0
        group = rows.group[index.numpy()]
        i, j = targets["pairs"]
        assert_array_equal(group[i], group[j])
        n_pairs += targets["pairs"].shape[1]
    assert n_pairs == 3 + 0 + 6 + 1


def test_human_batches_hold_labels_alone():
    rows = make_rows([4, 4])
    for inputs, targets in make_batches(rows, 4, human=True):
        index = inputs["features"].ravel().long()
        assert torch.equal(targets["human"], rows.human[index])
        assert targets["scores"].shape == (0, 2)
        assert targets["pairs"].shape == (2, 0)


def test_joint_batches_add_human_rows():
    rows = make_rows([6] * 5)
    chosen = np.flatnonzero(rows.has_human)
    segment = np.full(30, -1)
    segment[chosen] = np.arange(len(chosen))
    rng = np.random.RandomState(0)
    beside = DialogueBatches(rows, segment, 2, human=True, rng=rng, encoder=None)
    batches = make_batches(rows, 12, seed=0, beside=beside)
    llm_rows = []
    for inputs, targets in batches:
        index = inputs["features"].ravel().long()
        n_llm, n_human = len(targets["scores"]), len(targets["human"])
        assert len(index) == n_llm + n_human
        assert n_llm <= 12 and 1 <= n_human <= 2
        assert torch.equal(targets["scores"], rows.scores[index[:n_llm]])
        assert torch.equal(targets["human"], rows.human[index[n_llm:]])
        assert (targets["human"] >= 0).all()
        assert targets["pairs"].max() < n_llm
        llm_rows += index[:n_llm].tolist()
    assert sorted(llm_rows) == list(range(30))


def test_scarce_llm_rows_come_round_again():
    batches = make_batches(make_rows([6] * 5), 12)
    batches.passes = 3
    rows = [inputs["features"].ravel().long() for inputs, _ in batches]
    assert len(rows) == batches.n_batches() == 9
    assert torch.equal(torch.bincount(torch.cat(rows)), torch.full((30,), 3))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_text_is_encoded_once_in_a_batch(device):
    rng = np.random.RandomState(0)
    texts = ["x" * n for n in rng.permutation(np.arange(1, 41))]
    index = rng.randint(-1, 40, size=(60, 2))
    rows = Rows(
        group=np.repeat(np.arange(12), 5),
        human=torch.zeros(60, dtype=torch.long),
        scores=torch.zeros(60, 2),
        texts=texts,
        index=index,
        lengths=np.array([len(text) for text in texts]),
    )
    lengths = np.append(rows.lengths, 0)
    batches = make_batches(rows, 25, seed=0, encoder=CharacterEncoder(device))
    found = list(batches)
    for (inputs, _), (batch, _) in zip(
        found, make_batches(rows, 25, seed=0).row_batches(), strict=True
    ):
        chunks = [chunk["input_ids"].ravel() for chunk in inputs["tokens"]]
        if device == "cpu":
            assert max(len(chunk) for chunk in chunks) <= CPU_CHUNK
        else:
            assert len(chunks) == 1
        encoded = torch.cat(chunks)
        assert len(set(encoded.tolist())) == len(encoded)
        with_none = torch.cat([encoded, torch.zeros(1, dtype=torch.long)])  # last: no context
        assert_array_equal(with_none[inputs["index"]], lengths[index[batch]])


@pytest.mark.parametrize("multilabel", [False, True])
def test_rows_know_what_is_known(multilabel):
    human = torch.tensor([[0.0, NAN], [NAN, NAN], [1.0, 1.0]])
    rows = Rows(
        group=np.zeros(3, int),
        human=human if multilabel else torch.tensor([0, -1, 1]),
        scores=torch.tensor([[NAN, NAN], [0.5, 0.5], [0.1, NAN]]),
    )
    assert rows.multilabel is multilabel
    assert rows.has_human.tolist() == [True, False, True]
    assert rows.has_score.tolist() == [False, True, True]
    assert rows.cost(np.arange(3)).tolist() == [1, 1, 1]
