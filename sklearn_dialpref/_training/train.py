"""How a student learns: from the teacher, then from people, as far as held-out labels bear it.

The whole method is :func:`train_student`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklearn_dialpref._student.student import Student

from .batches import Rows
from .calibration import best_temperature, level_shift
from .net import DialogueNet, plan_training, train
from .progress import Part
from .recipe import (
    CAUTIOUS,
    LEAST_TEMPERATURE,
    LEVEL_ROWS,
    MANY_LABELS,
    N_FOLDS,
    SHARES,
    Recipe,
)
from .stages import HUMAN_STAGE, LabelStats, Stage, StageLoss
from .teacher import teacher_is_useless
from .weights import between, logits_of, state_of


@dataclass(frozen=True)
class Trained:
    """What training leaves beside the student.

    Attributes
    ----------
    net : DialogueNet
        The net of the last stage.
    history : list of dict
        One entry per epoch.
    human_weight : float
        Share of the way to the student that followed the human labels wherever they led.
    temperature : float
        What its logits were divided by.
    unseen : Tensor of shape (n, K), or None
        Logits of human-labelled rows by students that had not seen their labels, NaN elsewhere;
        None where they were not needed.
    unseen_loss : float
        Their cross-entropy with the labels; infinite where it is not known.
    """

    net: DialogueNet
    history: list[dict[str, Any]]
    human_weight: float = 1.0
    temperature: float = 1.0
    unseen: Tensor | None = None
    unseen_loss: float = math.inf


def train_student(
    student: Student,
    rows: Rows,
    held_out: NDArray[np.bool_],
    stages: Sequence[Stage],
    recipe: Recipe,
    labels: LabelStats,
    part: Part,
    *,
    judged: bool = False,
) -> Trained | None:
    """Train the student through the stages; the caller has seeded torch.

    1. It learns the teacher's scores in the stages before the first one on human labels. Where
       people's labels show that the teacher is of no use, that is the end.
    2. It goes on from there on human labels.
    3. How far it goes, between its weights before and after, and at which temperature, is what
       serves human-labelled dialogues best that were held out from the same steps.

    Parameters
    ----------
    student : Student
        It is trained in place.
    rows : Rows
    held_out : ndarray of bool, shape (n,)
        Rows for early stopping, which are not trained on.
    stages : sequence of Stage
    recipe : Recipe
    labels : LabelStats
    part : Part
    judged : bool, default=False
        Whether ``unseen_loss`` is wanted even where nothing is to be chosen by it here.

    Returns
    -------
    Trained, or None
        None where the teacher is of no use, so that a student is to be trained without.
    """
    plans = plan_training(student, rows, held_out, stages, recipe)
    n_teacher = next((number for number, stage in enumerate(stages) if stage.human), len(stages))
    human = rows.has_human & ~held_out
    history: list[dict[str, Any]] = []
    if n_teacher:
        net, history = train(student, plans[:n_teacher], recipe, labels, part)
        if n_teacher == len(stages):
            return Trained(net, history, human_weight=0.0)
        if part.within("judged").kept(lambda: _is_useless(student, rows, human)):
            return None

    last = list(stages[n_teacher:])
    follows = n_teacher > 0 and last == [HUMAN_STAGE]
    weight, temperature, unseen, loss = 1.0, 1.0, None, math.inf
    # the folds start where this student stands now, so they come before its last stages
    if follows or judged or rows.multilabel:
        shares = SHARES if follows else (1.0,)
        logits = _unseen_logits(
            student, rows, held_out, last, recipe, labels, shares, n_teacher, part
        )
        unseen = logits[0]
    if judged and not follows:
        loss = _loss_of_unseen(logits[0], rows.human, labels, recipe)
    if follows:
        before = state_of(student)
        weight, temperature, unseen, loss = _best_share(logits, rows.human, labels, recipe)
    net, more = train(student, plans[n_teacher:], recipe, labels, part)
    if follows:
        # where the teacher is good, few human labels add mostly their own noise; elsewhere they
        # should decide
        student.load_state_dict(between(before, student.state_dict(), weight))
        # into the last layer, so that saved and exported students need no temperature
        student.rescale(1 / temperature, torch.zeros(len(labels.absent), device=net.device))
        if labels.absent.any():
            _keep_level(student, rows, rows.has_score & ~held_out, labels.absent)
    history += [{**record, "epoch": len(history) + record["epoch"]} for record in more]
    return Trained(net, history, weight, temperature, unseen, loss)


def _is_useless(student: Student, rows: Rows, human: NDArray[np.bool_]) -> Tensor:
    return torch.tensor(teacher_is_useless(rows, human, logits_of(student, rows, human)))


def folds(
    group: NDArray[np.int64], human: NDArray[np.bool_], n_folds: int, seed: int
) -> tuple[NDArray[np.int64], int]:
    """A fold for each row, and how many there are; 1 where people labelled a single row.

    Dialogues stay whole, and those with human labels are spread evenly. Where people labelled
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
        fold[rng.permutation(units)] = np.arange(len(units)) % max(n_folds, 1)
    return fold[unit], n_folds


def _unseen_logits(
    student: Student,
    rows: Rows,
    held_out: NDArray[np.bool_],
    stages: Sequence[Stage],
    recipe: Recipe,
    labels: LabelStats,
    shares: Sequence[float],
    n_done: int,
    part: Part,
) -> Tensor:
    """Logits of human-labelled rows by students that go through the stages without their fold.

    Returns
    -------
    Tensor of shape (n_shares, n, K)
        At each share of the way from the student's present weights to those after the stages;
        NaN in the rows that no student was asked about.
    """
    logits = torch.full((len(shares), *rows.scores.shape), float("nan"))
    human = rows.has_human & ~held_out
    fold, n_folds = folds(rows.group, human, N_FOLDS, recipe.seed)
    if n_folds < 2:
        return logits
    quiet = replace(recipe, callbacks=[], early_stopping=False)
    of_fold = partial(_fold_logits, student, rows, stages, quiet, labels, shares, n_done)
    # of many labels one fold's rows tell enough, in a third of the time
    for number in range(1 if human.sum() > MANY_LABELS else n_folds):
        in_fold = fold == number
        fold_part = part.within(f"fold{number}")
        compute = partial(of_fold, held_out | in_fold, human & in_fold, fold_part)
        logits[:, torch.from_numpy(human & in_fold)] = fold_part.kept(compute)
    return logits


def _fold_logits(
    student: Student,
    rows: Rows,
    stages: Sequence[Stage],
    recipe: Recipe,
    labels: LabelStats,
    shares: Sequence[float],
    n_done: int,
    left_out: NDArray[np.bool_],
    test: NDArray[np.bool_],
    part: Part,
) -> Tensor:
    """Logits of the ``test`` rows by a copy of the student, which trains on the rows left in."""
    other = copy.deepcopy(student)
    # neither training nor early stopping of this student may see the fold's labels
    possible = [
        stage for stage in stages if stage.llm is None or (rows.has_score & ~left_out).any()
    ]
    plans = plan_training(other, rows, left_out, possible or [HUMAN_STAGE], recipe, n_done)
    train(other, plans, recipe, labels, part)
    before, after, logits = student.state_dict(), state_of(other), []
    with part.bar.part(part.name) as advance:
        for share in shares:
            other.load_state_dict(between(before, after, share))
            logits.append(logits_of(other, rows, test))
            advance(1 / len(shares))
    return torch.stack(logits)


def _best_share(
    logits: Tensor, human: Tensor, labels: LabelStats, recipe: Recipe
) -> tuple[float, float, Tensor | None, float]:
    """The share and the temperature of the least loss on unseen labels, the logits there, and it.

    The loss is infinite, and the share a cautious one, where no label was held out.
    """
    if logits[0].isnan().all():
        return CAUTIOUS, 1.0, None, math.inf

    def loss(logits: Tensor, temperature: float) -> float:
        return _loss_of_unseen(logits / temperature, human, labels, recipe)

    # labels that were trained on would make every share look as certain as it is on them, so
    # share and temperature are both chosen on unseen ones; of equal losses the smaller share wins
    fitted = [best_temperature(partial(loss, part), LEAST_TEMPERATURE) for part in logits.double()]
    best = int(np.argmin([value for _, value in fitted]))
    temperature, least = fitted[best]
    return SHARES[best], temperature, logits[best] / temperature, least


def _loss_of_unseen(logits: Tensor, human: Tensor, labels: LabelStats, recipe: Recipe) -> float:
    """Cross-entropy of the human labels with the rows' logits, where there are any."""
    known = ~logits.isnan().any(dim=1)
    if not known.any():
        return math.inf
    # in double: the search for a temperature compares losses that hardly differ
    criterion = StageLoss(HUMAN_STAGE, recipe, labels).double()
    truth = human[known].double() if human.ndim == 2 else human[known]
    return float(criterion.human_loss(logits[known].double(), truth))


def _keep_level(student: Student, rows: Rows, scored: NDArray[np.bool_], absent: Tensor) -> None:
    """Classes that no person used keep the mean score that the teacher gave them."""
    places = np.flatnonzero(scored)
    if not len(places):
        return
    chosen = np.zeros_like(scored)
    # rows of a dialogue stand together, so even steps reach all dialogues
    n = min(LEVEL_ROWS, len(places))
    chosen[places[np.linspace(0, len(places) - 1, n).astype(int)]] = True
    logits = logits_of(student, rows, chosen).double()
    scores = rows.scores[torch.from_numpy(chosen)].double()
    shift = level_shift(logits, scores, rows.multilabel, absent)
    student.rescale(1.0, shift.float().to(student.mean.device))
