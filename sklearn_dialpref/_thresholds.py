"""Where a label of a multilabel problem begins: thresholds for the best F1 on human labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from ._batches import Rows
from ._heads import HEAD_BATCH, folds
from ._net import train
from ._stages import HUMAN_STAGE, LabelFacts, Recipe, Stage, head_rate
from ._student import Student, head_inputs

__all__ = ["f1_thresholds", "unseen_logits"]

N_FOLDS = 3
DRAWS = 100
DRAWN_ROWS = 1_000_000  # at most in all draws together; of more rows one draw is enough


def unseen_logits(
    student: Student,
    rows: Rows,
    stages: Sequence[Stage],
    recipe: Recipe,
    labels: LabelFacts,
) -> Tensor:
    """Logits of human-labelled rows by students that have not seen their dialogues.

    An encoder that is to be trained stays as it is: these students have its features.

    Parameters
    ----------
    student : Student
        Not trained yet, and left so.
    rows : Rows
    stages : sequence of Stage
    recipe : Recipe
    labels : LabelFacts

    Returns
    -------
    Tensor of shape (n, K)
        NaN in rows without a human label, and everywhere if people labelled a single row.
    """
    inputs = head_inputs(student, rows)
    logits = torch.full(rows.scores.shape, float("nan"))
    human = rows.has_human
    fold, n_folds = folds(rows.group, human, N_FOLDS, recipe.seed)
    if n_folds < 2:
        return logits
    quiet = replace(recipe, callbacks=[], early_stopping=False, verbose=0)
    if student.encoder is not None:
        quiet = replace(quiet, learning_rate=head_rate(len(student.mean)), batch_size=HEAD_BATCH)
    for number in range(n_folds):
        seen = fold != number
        other = Student(inputs.shape[1], rows.scores.shape[1])
        other.mean, other.scale = student.mean.cpu(), student.scale.cpu()
        part = Rows(rows.group[seen], rows.human[seen], rows.scores[seen], features=inputs[seen])
        possible = [stage for stage in stages if stage.llm is None or part.has_score.any()]
        possible = possible or [HUMAN_STAGE]  # all that the LLM labelled is held out
        net, _ = train(other, part, np.zeros(len(part.group), dtype=bool), possible, quiet, labels)
        unseen = torch.from_numpy(human & ~seen)
        with torch.inference_mode():
            net.module_.eval()
            logits[unseen] = net.infer({"features": inputs[unseen]}).cpu()
    return logits


def f1_thresholds(human: Tensor, unseen: Tensor | None, seed: int) -> NDArray[np.float64]:
    """Probability from which on each label is predicted, for the best F1.

    The threshold of the best F1 jumps from one row's score to another's when few rows are
    positive, so its mean over bootstrap draws of the rows is taken, on the scale of logits.

    Parameters
    ----------
    human : Tensor of shape (n, L)
        0, 1 or NaN.
    unseen : Tensor of shape (n, L), or None
        Logits of rows by students that had not seen them; NaN where there are none.
    seed : int

    Returns
    -------
    ndarray of shape (L,)
        0.5 for a label without a positive example.
    """
    thresholds = np.zeros(human.shape[1])
    if unseen is not None:
        rng = np.random.RandomState(seed)
        for label, (true, score) in enumerate(zip(human.T.numpy(), unseen.T.numpy(), strict=True)):
            known = ~(np.isnan(true) | np.isnan(score))
            if (true[known] == 1).any():
                thresholds[label] = _mean_best_threshold(true[known] == 1, score[known], rng)
    return expit(thresholds)


def _mean_best_threshold(
    truth: NDArray[np.bool_], score: NDArray[np.floating], rng: np.random.RandomState
) -> float:
    """Mean over bootstrap draws of the score from which on a prediction has the best F1."""
    n = len(truth)
    order = np.argsort(-score, kind="stable")
    truth, score = truth[order], score[order].astype(np.float64)
    # halfway to the next score; there is none between equal ones, and the last takes all rows
    between = np.append((score[:-1] + score[1:]) / 2, score[-1])
    possible = np.append(score[:-1] > score[1:], True)
    n_draws = min(DRAWS, DRAWN_ROWS // n)
    weight = np.ones((1, n))
    if n_draws > 1:
        weight = rng.multinomial(n, np.full(n, 1 / n), size=n_draws).astype(np.float64)
        weight = weight[weight[:, truth].any(axis=1)]
    right, said = np.cumsum(weight * truth, axis=1), np.cumsum(weight, axis=1)
    f1 = np.where(possible, 2 * right / np.maximum(said + right[:, -1:], 1), -1.0)
    best = between[f1.argmax(axis=1)]
    return float(best.mean()) if len(best) else 0.0
