"""Heads on fixed features: short work beside the encoder, so that much can be tried on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._batches import Rows
from ._calibration import level_shift
from ._stages import HEAD_BATCH, Recipe, StageLoss, among_possible, rate_share
from ._student import Head

__all__ = ["HUMAN_STEPS", "Heads", "Pupil", "folds"]

HUMAN_STEPS = (0, 5, 10, 20, 40, 80, 160, 320)  # of the head, tried by cross-validation
HUMAN_RATE = 2e-4
HEAD_STEPS = 300  # at least, of a head that learns from the teacher anew
HEAD_EPOCHS = 5  # at least
HUMAN_FOLDS = 5
PATIENCE = 2  # numbers of steps tried after the best one so far
WEIGHT_DECAY = 0.01


def adamw(head: Head, rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(head.parameters(), rate, weight_decay=WEIGHT_DECAY, fused=True)


def folds(
    group: NDArray[np.int64], human: NDArray[np.bool_], n_folds: int, seed: int
) -> tuple[NDArray[np.int64], int]:
    """A fold for each row, and how many there are; 1 where people labelled a single row.

    Dialogues stay whole, and those with human labels are spread evenly.  Where people labelled
    a single dialogue, rows take the place of dialogues.
    """
    rng = np.random.RandomState(seed % 2**32)
    unit = group
    if len(np.unique(unit[human])) < 2:
        unit = np.arange(len(unit))
    with_human = np.unique(unit[human])
    n_folds = min(n_folds, len(with_human))
    fold = np.empty(int(unit.max()) + 1, dtype=np.int64)
    for units in (with_human, np.setdiff1d(unit, with_human)):
        fold[rng.permutation(units)] = np.arange(len(units)) % n_folds
    return fold[unit], n_folds


@dataclass
class Heads:
    """Trains heads on fixed features.

    Attributes
    ----------
    features : Tensor of shape (n, d)
        Standardised.
    rows : Rows
        The labels.
    member : Tensor of bool, shape (n,)
        Rows that may be trained on.
    teacher_loss : StageLoss
        Of a stage on the teacher's scores.
    human_loss : StageLoss
        Whose ``human_loss`` is the one on human labels.
    seed : int
    recipe : Recipe
    """

    features: Tensor
    rows: Rows
    member: Tensor
    teacher_loss: StageLoss
    human_loss: StageLoss
    seed: int
    recipe: Recipe

    @property
    def device(self) -> str:
        return self.recipe.device

    def __post_init__(self) -> None:
        self.has_human = torch.from_numpy(self.rows.has_human) & self.member
        self.has_score = torch.from_numpy(self.rows.has_score) & self.member

    def distilled(self, like: Head, among: Tensor, seed: int) -> Head:
        """A new head that learned the teacher's scores on the rows in ``among``."""
        head = copy.deepcopy(like)
        head.forget()
        places = torch.where(among & self.has_score)[0]
        if not len(places):
            return head
        n_batches = -(-len(places) // HEAD_BATCH)
        epochs = self.recipe.max_epochs or max(HEAD_EPOCHS, -(-HEAD_STEPS // n_batches))
        steps = epochs * n_batches
        peak = self.recipe.for_head(self.features.shape[1]).learning_rate
        optimizer = adamw(head, peak)
        head.train()
        for step, batch in enumerate(islice(self.batches(places, seed), steps)):
            optimizer.param_groups[0]["lr"] = peak * rate_share(step, steps)
            loss = self.teacher_loss(self.scored(head, batch), self.target(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return head.eval()

    def taught(self, head: Head, steps: int, among: Tensor) -> Head:
        """A copy of the head after some steps on the human labels in ``among``."""
        pupil = Pupil(self, head, among)
        pupil.learn(steps)
        if steps and self.human_loss.absent.any():
            self._keep_level(pupil.head, among)
        return pupil.head

    def _keep_level(self, head: Head, among: Tensor) -> None:
        """Classes that people never used keep the mean score that the teacher gave them."""
        places = torch.where(among & self.has_score)[0]
        if not len(places):
            return
        logits = self.logits(head, places).double()
        scores = self.rows.scores[places].double()
        absent = self.human_loss.absent.cpu()
        shift = level_shift(logits, scores, self.rows.multilabel, absent)
        with torch.no_grad():
            head.output.bias.add_(shift.to(head.output.bias))

    def logits(self, head: Head, places: Tensor) -> Tensor:
        head.eval()
        with torch.no_grad():
            return torch.cat([self.scored(head, part).cpu() for part in places.split(8192)])

    def target(self, places: Tensor) -> dict[str, Tensor]:
        """Of :class:`StageLoss`: the teacher's scores alone."""
        return {
            "scores": self.rows.scores[places].to(self.device),
            "pairs": torch.empty((2, 0), dtype=torch.int64),
            "human": self.rows.human[:0],
        }

    def scored(self, head: Head, places: Tensor) -> Tensor:
        possible = self.rows.possible
        possible = None if possible is None else possible[places].to(self.device)
        return among_possible(head(self.features[places].to(self.device)), possible)

    def batches(self, places: Tensor, seed: int) -> Iterator[Tensor]:
        """Batches of the rows in random order, pass after pass without end."""
        rng = np.random.RandomState(seed % 2**32)
        while True:
            order = torch.from_numpy(rng.permutation(len(places)))
            whole = len(places) // HEAD_BATCH * HEAD_BATCH or len(places)
            for at in range(0, whole, HEAD_BATCH):
                yield places[order[at : at + HEAD_BATCH]]

    # -- what human labels decide ---------------------------------------------------------------

    def folds(self, n_folds: int, seed: int) -> tuple[Tensor, int]:
        """As the function of this name."""
        fold, n_folds = folds(self.rows.group, self.has_human.numpy(), n_folds, seed)
        return torch.from_numpy(fold), n_folds

    def steps_on_human(self, head: Head) -> int:
        """How many steps on human labels serve held-out dialogues best, by their log-loss."""
        fold, n_folds = self.folds(HUMAN_FOLDS, self.seed)
        if n_folds < 2:
            return HUMAN_STEPS[1]
        losses: list[float] = []
        pupils = [Pupil(self, head, fold != number) for number in range(n_folds)]
        for steps in HUMAN_STEPS:
            total = 0.0
            for number, pupil in enumerate(pupils):
                held = self.has_human & (fold == number)
                pupil.learn(steps)
                logits = self.logits(pupil.head, torch.where(held)[0])
                total += self._human_loss(logits, held) * int(held.sum())
            losses.append(total)
            if len(losses) - int(np.argmin(losses)) > PATIENCE:
                break
        return HUMAN_STEPS[int(np.argmin(losses))]

    def loss_on_human(self, head: Head) -> float:
        """Mean cross-entropy on all human labels."""
        return self._human_loss(self.logits(head, torch.where(self.has_human)[0]), self.has_human)

    def _human_loss(self, logits: Tensor, among: Tensor) -> float:
        human = self.rows.human[among]
        return float(self.human_loss.human_loss(logits.to(self.device), human.to(self.device)))


class Pupil:
    """A copy of a head that goes on learning from the human labels in ``among``."""

    def __init__(self, heads: Heads, head: Head, among: Tensor) -> None:
        self.heads = heads
        self.head = copy.deepcopy(head).eval()
        self.steps = 0
        places = torch.where(among & heads.has_human)[0]
        self.batches = heads.batches(places, heads.seed) if len(places) else iter(())
        self.optimizer = adamw(self.head, HUMAN_RATE)

    def learn(self, steps: int) -> None:
        """Go on until ``steps`` steps are done in all."""
        self.head.train()
        for batch in islice(self.batches, steps - self.steps):
            human = self.heads.rows.human[batch].to(self.heads.device)
            loss = self.heads.human_loss.human_loss(self.heads.scored(self.head, batch), human)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.steps = steps
        self.head.eval()
