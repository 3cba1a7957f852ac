"""Training rows, and batches of whole dialogues under a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from sklearn_dialpref._student.encoders import TextEncoder
from sklearn_dialpref._student.student import EmbeddedRows
from sklearn_dialpref.pairs import dialogue_pairs

from .recipe import MAX_SEGMENT, TOKENS_PER_UTTERANCE

CPU_CHUNK = 16  # texts of like length that are padded together; a GPU takes a batch as one


@dataclass(frozen=True)
class Rows:
    """Training rows in canonical order.

    Attributes
    ----------
    group : ndarray of shape (n,)
        Dialogue of each row; rows of a dialogue stand together.
    human : Tensor
        (n,) class codes, -1 where missing; multilabel (n, K) of 0, 1, NaN.
    scores : Tensor of shape (n, K)
        The teacher's; NaN where missing.
    features : Tensor or EmbeddedRows of shape (n, d), or None
    texts : list of str
        Distinct texts, empty with features.
    index : ndarray of shape (n, n_slots), or None
        Each row's texts; -1 for no context.
    lengths : ndarray of shape (n_texts,), or None
        Tokens of the distinct texts.
    possible : Tensor of bool, shape (n, K), or None
        Classes that a row can have; None where that is all of them.
    """

    group: NDArray[np.int64]
    human: Tensor
    scores: Tensor
    features: Tensor | EmbeddedRows | None = None
    texts: Sequence[str] = ()
    index: NDArray[np.int64] | None = None
    lengths: NDArray[np.int64] | None = None
    possible: Tensor | None = None

    @property
    def multilabel(self) -> bool:
        return self.human.ndim == 2

    @property
    def has_human(self) -> NDArray[np.bool_]:
        known = (self.human >= 0).any(dim=1) if self.multilabel else self.human >= 0
        return known.numpy()

    @property
    def has_score(self) -> NDArray[np.bool_]:
        return (~self.scores.isnan()).any(dim=1).numpy()

    def cost(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each row costs, in utterances of up to ``TOKENS_PER_UTTERANCE`` tokens."""
        if self.index is None or self.lengths is None:
            return np.ones(len(rows))
        tokens = np.append(self.lengths, 0)[self.index[rows]].sum(axis=1)
        return np.maximum(1.0, tokens / TOKENS_PER_UTTERANCE)


def segments(
    group: NDArray[np.int64], cost: NDArray[np.float64], limit: float, least: int = 1
) -> NDArray[np.int64]:
    """Number of each row's segment: a dialogue, or a stretch of one within limits.

    Parameters
    ----------
    group : ndarray of shape (n,)
        Dialogues, rows of one standing together.
    cost : ndarray of shape (n,)
    limit : float
        Cost of a segment at most; its rows are at most ``MAX_SEGMENT``.
    least : int, default=1
        Rows of a segment at least, whatever they cost, where its dialogue has so many.
    """
    if not len(group):
        return np.empty(0, dtype=np.int64)
    new = np.r_[True, group[1:] != group[:-1]]
    first = np.flatnonzero(new)
    size = np.diff(np.r_[first, len(group)])
    long = (size > MAX_SEGMENT) | (np.add.reduceat(cost, first) > limit)
    for begin, end in zip(first[long], (first + size)[long], strict=True):
        start, spent = begin, 0.0
        for row in range(begin, end):
            # no stretch shorter than `least` may be left at either end
            full = row - start >= MAX_SEGMENT or spent + cost[row] > limit
            if full and row - start >= least and end - row >= least:
                new[row] = True
                start, spent = row, 0.0
            spent += cost[row]
    return np.cumsum(new) - 1


class DialogueBatches(IterableDataset):
    """Batches of whole segments under a budget, shuffled anew at each pass.

    Parameters
    ----------
    rows : Rows
    segment : ndarray of shape (n,)
        Segment of each row of ``rows`` that takes part, -1 for the others.
    budget : int
        Cost of a batch at most, unless a single segment exceeds it.
    rng : RandomState or None
        None keeps the order.
    encoder : TextEncoder or None
        Whose tokens are wanted.
    beside : DialogueBatches or None
        Batches of human-labelled rows, one of which joins each batch.

    Attributes
    ----------
    passes : int
        How often each row comes in one iteration; 1 unless set.
    skip : int
        How many batches the next iteration leaves out, as they were trained on already.
    """

    def __init__(
        self,
        rows: Rows,
        segment: NDArray[np.int64],
        budget: int,
        *,
        human: bool,
        rng: np.random.RandomState | None,
        encoder: TextEncoder | None,
        beside: DialogueBatches | None = None,
    ) -> None:
        self.rows = rows
        self.budget = budget
        self.human = human
        self.rng = rng
        self.encoder = encoder
        self.beside = beside
        self.passes = 1
        self.skip = 0
        members = np.flatnonzero(segment >= 0)
        self.members = members[np.argsort(segment[members], kind="stable")]
        numbers, self.start, self.size = np.unique(
            segment[self.members], return_index=True, return_counts=True
        )
        cost = rows.cost(self.members)
        self.cost = np.add.reduceat(cost, self.start) if len(numbers) else cost

    def row_batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Row numbers of each batch of one pass, and their segments."""
        n = len(self.start)
        order = np.arange(n) if self.rng is None else self.rng.permutation(n)
        total = np.cumsum(self.cost[order])
        start = 0
        while start < n:
            end = self._end_of_batch(total, start)
            chosen = order[start:end]
            size = self.size[chosen]
            offset = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
            yield (
                self.members[np.repeat(self.start[chosen], size) + offset],
                np.repeat(np.arange(len(chosen)), size),
            )
            start = end

    def endless(self) -> Iterator[NDArray[np.int64]]:
        while True:
            for rows, _ in self.row_batches():
                yield rows

    def __iter__(self) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
        beside = self.beside.endless() if self.beside is not None else None
        skip, self.skip = self.skip, 0
        passes = chain.from_iterable(self.row_batches() for _ in range(self.passes))
        for number, (rows, segment) in enumerate(passes):
            if number < skip:
                if beside is not None:
                    next(beside)
                continue
            n_llm = 0 if self.human else len(rows)
            pairs = np.stack(dialogue_pairs(segment)) if n_llm else np.empty((2, 0), np.int64)
            # they go on where the last batch left them, whatever the pass of the others
            if beside is not None:
                rows = np.concatenate([rows, next(beside)])
            yield self._inputs(rows), self._targets(rows, n_llm, pairs)

    def _targets(
        self, rows: NDArray[np.int64], n_llm: int, pairs: NDArray[np.int64]
    ) -> dict[str, Tensor]:
        target = {
            "scores": self.rows.scores[rows[:n_llm]],
            "pairs": torch.from_numpy(pairs),
            "human": self.rows.human[rows[n_llm:]],
        }
        if self.rows.possible is not None:
            target["possible"] = self.rows.possible[rows]
        return target

    def _inputs(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        if self.rows.features is not None:
            return {"features": self.rows.features[rows]}
        assert self.encoder is not None
        assert self.rows.index is not None and self.rows.lengths is not None
        index = self.rows.index[rows]
        distinct = np.unique(index[index >= 0])
        # texts of like length are padded together, so that little of a chunk is padding
        distinct = distinct[np.argsort(self.rows.lengths[distinct], kind="stable")]
        place = np.full(len(self.rows.texts) + 1, len(distinct))
        place[distinct] = np.arange(len(distinct))
        texts = [self.rows.texts[number] for number in distinct]
        size = CPU_CHUNK if self.encoder.device.type == "cpu" else max(1, len(texts))
        chunks = [texts[start : start + size] for start in range(0, len(texts), size)]
        return {
            "tokens": [self.encoder.tokens(chunk) for chunk in chunks],
            "index": torch.from_numpy(place[index]),
        }

    def n_batches(self) -> int:
        """Batches of an iteration in the rows' own order; shuffled, it can differ by a few."""
        total = np.cumsum(self.cost)
        count = start = 0
        while start < len(total):
            start = self._end_of_batch(total, start)
            count += 1
        return self.passes * count

    def _end_of_batch(self, total: NDArray[np.float64], start: int) -> int:
        # costs are fractions: their sums may exceed the budget by rounding
        spent = total[start - 1] if start else 0.0
        return max(start + 1, int(np.searchsorted(total, spent + self.budget + 1e-6, "right")))
