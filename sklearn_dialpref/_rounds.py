"""Two rounds: first the teacher's labels, then what teacher, student and people say together.

The head is short work next to the encoder, so that whatever the human labels have to decide is
decided on fixed features by cross-validation over whole dialogues: how long the head learns from
them, and how much the teacher's label counts beside the student's opinion.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ._batches import Rows
from ._calibration import level_shift
from ._net import DialogueNet, train
from ._stages import LabelFacts, Recipe, Stage, StageLoss, head_rate, smoothed
from ._student import Student, forget, side_by_side
from .losses import LOSSES

__all__ = ["Heads", "fixed_features", "human_shares", "teacher_log_likelihood", "train_rounds"]

HUMAN_STEPS = (0, 5, 10, 20, 40, 80, 160, 320)  # of the head, tried by cross-validation
HUMAN_RATE = 2e-4
HEAD_BATCH = 128
HEAD_STEPS = 300  # at least, of a head that learns from the teacher anew
HEAD_EPOCHS = 5  # at least
HUMAN_FOLDS = 5
OPINION_FOLDS = 3
PATIENCE = 2  # numbers of steps tried after the best one so far
WEIGHT_DECAY = 0.01
TEACHER_WEIGHT = 0.5  # of the teacher's evidence beside a student's opinion


def fixed_features(student: Student, rows: Rows) -> Tensor:
    """Standardised inputs of the head, as the encoder now gives them."""
    if rows.features is not None:
        found = rows.features
    else:
        assert student.encoder is not None and rows.index is not None
        embedded = torch.from_numpy(student.encoder.embed(rows.texts))
        found = side_by_side(embedded, torch.from_numpy(rows.index), student.encoder.n_context)
    return (found - student.mean.cpu()) / student.scale.cpu()


# -- what the teacher's label says ------------------------------------------------------------


def _two_sided(shares: Tensor) -> Tensor:
    """Multilabel: (n, L) probabilities as (n, L, 2) of absence and presence."""
    return torch.stack([1 - shares, shares], dim=-1)


def human_shares(rows: Rows) -> Tensor:
    """One-hot human labels, (n, 1, K), or (n, L, 2) for multilabel; NaN where missing."""
    if rows.multilabel:
        return _two_sided(rows.human)
    n_classes = rows.scores.shape[1]
    shares = torch.eye(n_classes)[rows.human.clamp(min=0)]
    return shares.masked_fill((rows.human < 0)[:, None], float("nan"))[:, None]


def teacher_log_likelihood(human: Tensor, said: Tensor, known: Tensor) -> Tensor:
    """Log-likelihood of the teacher's scores under each true class.

    ``sum_l s_l log T[k, l]``, with the confusion ``T[k, l] = P(teacher says l | class k)`` counted
    on the rows in ``known`` that have both labels, and smoothed.

    Parameters
    ----------
    human, said : Tensor of shape (n, P, K)
        Labels as shares; NaN where missing.
    known : Tensor of bool, shape (n,)

    Returns
    -------
    Tensor of shape (n, P, K)
        NaN where the teacher said nothing.
    """
    both = known[:, None] & ~human.isnan().any(dim=2) & ~said.isnan().any(dim=2)
    true = torch.where(both[..., None], human, 0.0)
    counts = torch.einsum("npk,npl->pkl", true, torch.where(both[..., None], said, 0.0))
    right = counts.diagonal(dim1=1, dim2=2).sum(dim=1)
    accuracy = (right + 1) / (counts.sum(dim=(1, 2)) + 2)
    return torch.einsum("npl,pkl->npk", said, smoothed(counts, accuracy).log())


# -- heads on fixed features ------------------------------------------------------------------


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
    human_loss : StageLoss
        Whose ``human_loss`` is the one on human labels.
    seed : int
    recipe : Recipe
    """

    features: Tensor
    rows: Rows
    member: Tensor
    human_loss: StageLoss
    seed: int
    recipe: Recipe

    @property
    def device(self) -> str:
        return self.recipe.device

    def __post_init__(self) -> None:
        self.has_human = torch.from_numpy(self.rows.has_human) & self.member
        self.has_score = torch.from_numpy(self.rows.has_score) & self.member

    def distilled(self, like: nn.Module, among: Tensor, seed: int) -> nn.Module:
        """A new head that learned the teacher's scores on the rows in ``among``."""
        head = copy.deepcopy(like)
        forget(head)
        places = torch.where(among & self.has_score)[0]
        if not len(places):
            return head
        distil = LOSSES["soft_cross_entropy"]
        pairs = torch.empty((2, 0), dtype=torch.int64)
        n_batches = -(-len(places) // HEAD_BATCH)
        epochs = self.recipe.max_epochs or max(HEAD_EPOCHS, -(-HEAD_STEPS // n_batches))
        steps = epochs * n_batches
        peak = head_rate(self.features.shape[1])
        optimizer = torch.optim.AdamW(head.parameters(), lr=peak, weight_decay=WEIGHT_DECAY)
        warm = max(1.0, 0.1 * steps)
        head.train()
        for step, batch in enumerate(islice(self.batches(places, seed), steps)):
            rate = min((step + 1) / warm, (steps - step) / (steps - warm + 1))
            for group in optimizer.param_groups:
                group["lr"] = peak * rate
            scores = self.rows.scores[batch].to(self.device)
            loss = distil(self.scored(head, batch), scores, pairs, multilabel=self.rows.multilabel)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return head.eval()

    def taught(self, head: nn.Module, steps: int, among: Tensor) -> nn.Module:
        """A copy of the head after some steps on the human labels in ``among``."""
        pupil = Pupil(self, head, among)
        pupil.learn(steps)
        if steps and self.human_loss.absent.any():
            self._keep_level(pupil.head, among)
        return pupil.head

    def _keep_level(self, head: nn.Module, among: Tensor) -> None:
        """Classes that people never used keep the mean score that the teacher gave them."""
        places = torch.where(among & self.has_score)[0]
        if not len(places):
            return
        logits = self.logits(head, places).double()
        scores = self.rows.scores[places].double()
        absent = self.human_loss.absent.cpu()
        shift = level_shift(logits, scores, self.rows.multilabel, absent)
        with torch.no_grad():
            head[-1].bias.add_(shift.to(head[-1].bias))  # type: ignore[index]

    def logits(self, head: nn.Module, places: Tensor) -> Tensor:
        head.eval()
        with torch.no_grad():
            return torch.cat([self.scored(head, part).cpu() for part in places.split(8192)])

    def scored(self, head: nn.Module, places: Tensor) -> Tensor:
        return head(self.features[places].to(self.device))

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
        """A fold for each row, and how many there are; 1 where people labelled a single row.

        Dialogues stay whole, and those with human labels are spread evenly.  Where people
        labelled a single dialogue, rows take the place of dialogues.
        """
        rng = np.random.RandomState(seed % 2**32)
        human = self.has_human.numpy()
        unit = self.rows.group
        if len(np.unique(unit[human])) < 2:
            unit = np.arange(len(unit))
        with_human = np.unique(unit[human])
        n_folds = min(n_folds, len(with_human))
        fold = np.empty(int(unit.max()) + 1, dtype=np.int64)
        for units in (with_human, np.setdiff1d(unit, with_human)):
            fold[rng.permutation(units)] = np.arange(len(units)) % n_folds
        return torch.from_numpy(fold[unit]), n_folds

    def steps_on_human(self, head: nn.Module) -> int:
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

    def loss_on_human(self, head: nn.Module) -> float:
        """Mean cross-entropy on all human labels."""
        return self._human_loss(self.logits(head, torch.where(self.has_human)[0]), self.has_human)

    def _human_loss(self, logits: Tensor, among: Tensor) -> float:
        human = self.rows.human[among]
        return float(self.human_loss.human_loss(logits.to(self.device), human.to(self.device)))

    def opinion(self, head: nn.Module, steps: int) -> tuple[Tensor, Tensor]:
        """What students say of rows whose labels they have not seen, and the teacher's evidence.

        Returns
        -------
        opinion, evidence : Tensor of shape (n, P, K)
            Log-probability of each class, and log-likelihood of the teacher's scores.
        """
        multilabel = self.rows.multilabel
        said = _two_sided(self.rows.scores) if multilabel else self.rows.scores[:, None]
        human = human_shares(self.rows)
        opinion, evidence = torch.zeros_like(said), torch.zeros_like(said)
        fold, n_folds = self.folds(OPINION_FOLDS, self.seed + 1)
        for number in range(n_folds):
            others, own = fold != number, torch.where(fold == number)[0]
            student = self.distilled(head, others, self.seed + 2 + number)
            student = self.taught(student, steps, others)
            logits = self.logits(student, own).double()
            if multilabel:
                each = torch.stack([logsigmoid(-logits), logsigmoid(logits)], dim=-1)
            else:
                each = logits.log_softmax(dim=1)[:, None]
            opinion[own] = each.float()
            evidence[own] = teacher_log_likelihood(human, said, others & self.member)[own]
        return opinion, evidence

    def posterior(self, head: nn.Module, steps: int) -> Tensor | None:
        """Scores of the second round, or None where human labels cannot weigh the teacher's.

        ``p_k ∝ q_k · (Π_l T[k, l]^s_l)^½`` for the student's opinion ``q`` and the teacher's
        scores ``s``; a human label stands as it is.
        """
        if self.has_human.sum() < 2:
            return None
        opinion, evidence = self.opinion(head, steps)
        human = human_shares(self.rows)
        known = ~human.isnan().any(dim=2) & self.member[:, None]
        if not (known & ~evidence.isnan().any(dim=2)).any():
            return None
        posterior = (opinion + TEACHER_WEIGHT * evidence).softmax(dim=2)
        posterior = torch.where(known[..., None], human, posterior)
        return posterior[..., 1] if self.rows.multilabel else posterior[:, 0]


class Pupil:
    """A copy of a head that goes on learning from the human labels in ``among``."""

    def __init__(self, heads: Heads, head: nn.Module, among: Tensor) -> None:
        self.heads = heads
        self.head = copy.deepcopy(head).eval()
        self.steps = 0
        places = torch.where(among & heads.has_human)[0]
        self.batches = heads.batches(places, heads.seed) if len(places) else iter(())
        self.optimizer = torch.optim.AdamW(
            self.head.parameters(), lr=HUMAN_RATE, weight_decay=WEIGHT_DECAY
        )

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


# -- the two rounds ---------------------------------------------------------------------------


def train_rounds(
    student: Student,
    rows: Rows,
    held_out: NDArray[np.bool_],
    stages: Sequence[Stage],
    recipe: Recipe,
    labels: LabelFacts,
) -> tuple[DialogueNet, list[dict[str, Any]]]:
    """Train the student in two rounds; as :func:`sklearn_dialpref._net.train` otherwise.

    Parameters
    ----------
    student : Student
        Trained in place.
    rows : Rows
    held_out : ndarray of bool, shape (n,)
    stages : sequence of Stage
        How the student learns in the first round and in the second.
    recipe : Recipe
    labels : LabelFacts

    Returns
    -------
    net : DialogueNet
    history : list of dict
    """
    first, second = stages
    net, history = train(student, rows, held_out, [first], recipe, labels)
    member = torch.from_numpy(~held_out)
    human_loss = StageLoss(Stage("finetune", None, True), recipe, labels).to(recipe.device)

    trained = Heads(fixed_features(student, rows), rows, member, human_loss, recipe.seed, recipe)
    steps = trained.steps_on_human(student.head)
    posterior = trained.posterior(student.head, steps)
    if posterior is not None:
        if student.encoder is None:
            forget(student.head)
        again = replace(rows, scores=posterior)
        net, more = train(student, again, held_out, [second], recipe, labels)
        history += [{**record, "epoch": len(history) + record["epoch"]} for record in more]
        if student.encoder is not None:
            trained = replace(trained, features=fixed_features(student, rows))
        trained, steps = replace(trained, seed=recipe.seed + 1), steps // 2
    began = time.perf_counter()
    head = trained.taught(student.head, steps, member)
    student.head.load_state_dict(head.state_dict())
    history.append(
        {
            "epoch": len(history) + 1,
            "stage": "finetune",
            "train_loss": trained.loss_on_human(student.head),
            "valid_loss": float("nan"),
            "duration": time.perf_counter() - began,
        }
    )
    return net, history
