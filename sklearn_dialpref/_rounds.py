"""Two rounds: first the teacher's labels, then what teacher, student and people say together.

The head is short work next to the encoder, so that whatever the human labels have to decide is
decided on fixed features by cross-validation over whole dialogues: how long the head learns from
them, and how much the teacher's label counts beside the student's opinion.  An encoder that is to
be trained learns in the end, from the labels of the second round.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from ._batches import Rows
from ._heads import Heads
from ._net import DialogueNet, train
from ._stages import HUMAN_STAGE, LabelFacts, Recipe, Stage, StageLoss, initial_level, smoothed
from ._student import Head, Student, head_inputs
from ._thresholds import unseen_logits

__all__ = [
    "human_shares",
    "permutation_z",
    "posterior",
    "teacher_is_useless",
    "teacher_log_likelihood",
    "train_rounds",
    "train_student",
]

OPINION_FOLDS = 3
TEACHER_WEIGHT = 0.5  # of the teacher's evidence beside a student's opinion
FEWEST_TO_JUDGE = 20  # human-labelled rows, to call a teacher useless
SIGNIFICANT = 2.0  # standard scores
SMALL_EFFECT = 0.2  # standard deviations of a row


# -- shares of classes, (n, 1, K), or (n, L, 2) for multilabel ----------------------------------


def _two_sided(shares: Tensor) -> Tensor:
    """Multilabel: (n, L) probabilities as (n, L, 2) of absence and presence."""
    return torch.stack([1 - shares, shares], dim=-1)


def _said(rows: Rows) -> Tensor:
    """The teacher's scores as shares."""
    return _two_sided(rows.scores) if rows.multilabel else rows.scores[:, None]


def human_shares(rows: Rows) -> Tensor:
    """One-hot human labels, (n, 1, K), or (n, L, 2) for multilabel; NaN where missing."""
    if rows.multilabel:
        return _two_sided(rows.human)
    n_classes = rows.scores.shape[1]
    shares = torch.eye(n_classes)[rows.human.clamp(min=0)]
    return shares.masked_fill((rows.human < 0)[:, None], float("nan"))[:, None]


def log_probabilities(logits: Tensor, multilabel: bool) -> Tensor:
    if multilabel:
        return torch.stack([logsigmoid(-logits), logsigmoid(logits)], dim=-1)
    return logits.log_softmax(dim=1)[:, None]


# -- what the teacher's label says ------------------------------------------------------------


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


def permutation_z(values: Tensor, truth: Tensor, stratum: Tensor | None = None) -> float:
    """How far ``sum_i values[i, truth_i]`` is above its mean over permutations of the rows.

    In standard deviations, which are known for a sum of this kind (Hoeffding, "A combinatorial
    central limit theorem", 1951).  Summed over the P labels as if they were independent.

    Parameters
    ----------
    values, truth : Tensor of shape (n, P, K)
        Numbers, and labels as shares; entries with NaN are left out.
    stratum : Tensor of int, shape (n,), default=None
        Rows that may change places have the same number.

    Returns
    -------
    float
        Infinite where nothing varies.
    """
    above, variance = 0.0, 0.0
    strata = torch.zeros(len(values)) if stratum is None else stratum
    columns = zip(values.double().unbind(1), truth.double().unbind(1), strict=True)
    for (some, true), number in product(columns, strata.unique()):
        known = ~(some.isnan() | true.isnan()).any(dim=1) & (strata == number)
        some, true = some[known], true[known]
        if len(some) < 2:
            continue
        share = true.mean(dim=0)
        some = some - (some * share).sum(dim=1, keepdim=True)
        some = some - some.mean(dim=0)
        above += float((some * true).sum())
        variance += float((some**2 * share).sum()) * len(some) / (len(some) - 1)
    return above / variance**0.5 if variance > 0 else float("inf")


def teacher_is_useless(heads: Heads, head: Head) -> bool:
    """Whether neither the teacher's scores nor what a head learned from them say anything.

    Both are held against the human labels: the scores themselves, in rows that have them, and the
    log-probabilities of the head, which knows more of a weak teacher, as it has seen all its
    labels, but nothing if it was trained too little.  Neither may be significantly higher for the
    human labels than for the same labels in random order, nor by more than a small effect.
    """
    places = torch.where(heads.has_human)[0]
    if len(places) < FEWEST_TO_JUDGE:
        return False
    rows = heads.rows
    truth = human_shares(rows)[places]
    learned = log_probabilities(heads.logits(head, places), rows.multilabel)
    enough = min(SIGNIFICANT, SMALL_EFFECT * len(places) ** 0.5)
    stratum = None  # who can have the same classes
    if rows.possible is not None:
        stratum = rows.possible[places].unique(dim=0, return_inverse=True)[1]
    return all(
        permutation_z(what, truth, stratum) < enough for what in (_said(rows)[places], learned)
    )


# -- the labels of the second round -----------------------------------------------------------


def opinions(heads: Heads, head: Head, steps: int) -> tuple[Tensor, Tensor]:
    """What students say of rows whose labels they have not seen, and the teacher's evidence.

    Returns
    -------
    opinion, evidence : Tensor of shape (n, P, K)
        Log-probability of each class, and log-likelihood of the teacher's scores.
    """
    rows = heads.rows
    said, human = _said(rows), human_shares(rows)
    opinion, evidence = torch.zeros_like(said), torch.zeros_like(said)
    fold, n_folds = heads.folds(OPINION_FOLDS, heads.seed + 1)
    for number in range(n_folds):
        others, own = fold != number, torch.where(fold == number)[0]
        student = heads.distilled(head, others, heads.seed + 2 + number)
        student = heads.taught(student, steps, others)
        logits = heads.logits(student, own).double()
        opinion[own] = log_probabilities(logits, rows.multilabel).float()
        evidence[own] = teacher_log_likelihood(human, said, others & heads.member)[own]
    return opinion, evidence


def posterior(heads: Heads, opinion: Tensor, evidence: Tensor) -> Tensor | None:
    """Scores of the second round, or None where human labels cannot weigh the teacher's.

    ``p_k ∝ q_k · (Π_l T[k, l]^s_l)^½`` for the student's opinion ``q`` and the teacher's
    scores ``s``; a human label stands as it is.
    """
    human = human_shares(heads.rows)
    known = ~human.isnan().any(dim=2) & heads.member[:, None]
    if not (known & ~evidence.isnan().any(dim=2)).any():
        return None
    shares = (opinion + TEACHER_WEIGHT * evidence).softmax(dim=2)
    shares = torch.where(known[..., None], human, shares)
    return shares[..., 1] if heads.rows.multilabel else shares[:, 0]


# -- training -----------------------------------------------------------------------------------


def train_student(
    student: Student,
    rows: Rows,
    held_out: NDArray[np.bool_],
    stages: Sequence[Stage],
    recipe: Recipe,
    labels: LabelFacts,
) -> tuple[DialogueNet, list[dict[str, Any]], Tensor | None]:
    """Train by any schedule; parameters and returns as of :func:`train_rounds`."""
    if stages[-1].name == "refine":
        return train_rounds(student, rows, held_out, stages, recipe, labels)
    unseen = None
    if rows.multilabel and rows.has_human.any():
        unseen = unseen_logits(student, rows, stages, recipe, labels)
    net, history = train(student, rows, held_out, stages, recipe, labels)
    return net, history, unseen


def train_rounds(
    student: Student,
    rows: Rows,
    held_out: NDArray[np.bool_],
    stages: Sequence[Stage],
    recipe: Recipe,
    labels: LabelFacts,
) -> tuple[DialogueNet, list[dict[str, Any]], Tensor | None]:
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
    unseen : Tensor of shape (n, K), or None
        Multilabel: logits of the rows by students that had not seen their labels; None where
        there are too few human labels.
    """
    history: list[dict[str, Any]] = []

    def learn(pupil: Student, from_rows: Rows, stage: Stage, how: Recipe) -> DialogueNet:
        net, more = train(pupil, from_rows, held_out, [stage], how, labels)
        before = len(history)
        history.extend({**record, "epoch": before + record["epoch"]} for record in more)
        return net

    first, second = stages
    probe, inputs = student.without_encoder(), head_inputs(student, rows)
    fixed = replace(rows, features=inputs)
    head_recipe = recipe if student.encoder is None else recipe.for_head(len(student.mean))
    net = learn(probe, fixed, first, head_recipe)
    heads = Heads(
        probe.standardised(inputs),
        fixed,
        torch.from_numpy(~held_out),
        StageLoss(first, recipe, labels).to(recipe.device),
        StageLoss(HUMAN_STAGE, recipe, labels).to(recipe.device),
        recipe.seed,
        recipe,
    )
    if teacher_is_useless(heads, probe.head):
        warnings.warn(
            "the LLM's labels say nothing about the human ones: neither they nor a student of "
            "them are better than chance.  y_llm is left out; see teacher_report",
            UserWarning,
            stacklevel=3,
        )
        unscored = replace(rows, scores=torch.full_like(rows.scores, float("nan")))
        student.head.start_at(initial_level(unscored))
        student.head.forget()
        unseen = None
        if rows.multilabel:
            unseen = unseen_logits(probe, fixed, [HUMAN_STAGE], head_recipe, labels)
        return learn(student, rows, HUMAN_STAGE, recipe), history, unseen

    steps = heads.steps_on_human(probe.head)
    last, scores, unseen = first, None, None
    if heads.has_human.sum() > 1:
        opinion, evidence = opinions(heads, probe.head, steps)
        scores = posterior(heads, opinion, evidence)
        if rows.multilabel:
            unseen = opinion[..., 1] - opinion[..., 0]
    if scores is not None:
        last, steps = second, steps // 2
        rows, fixed = replace(rows, scores=scores), replace(fixed, scores=scores)
        heads = replace(heads, seed=recipe.seed + 1)
        probe.head.forget()
        net = learn(probe, fixed, second, head_recipe)
    if student.encoder is not None:
        net = learn(student, rows, last, recipe)
        heads = replace(heads, features=probe.standardised(head_inputs(student, rows)))
    began = time.perf_counter()
    head = heads.taught(student.head, steps, heads.member)
    student.head.load_state_dict(head.state_dict())
    history.append(
        {
            "epoch": len(history) + 1,
            "stage": HUMAN_STAGE.name,
            "train_loss": heads.loss_on_human(student.head),
            "valid_loss": float("nan"),
            "duration": time.perf_counter() - began,
        }
    )
    return net, history, unseen
