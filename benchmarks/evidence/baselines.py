"""Common alternatives: each is a function from a cell and a seed to class probabilities."""

import numpy as np
import pandas as pd

from sklearn_dialpref import votes_to_scores

from .annot_mix import annot_mix
from .data import Cell
from .features import cell_features
from .fine_tuned import FINE_TUNED
from .head import (
    distil,
    forward_loss,
    human_stage,
    joint,
    new_head,
    predict,
    smoothed_confusion,
    soft_loss,
)
from .linear import LINEAR

__all__ = ["BASELINES"]

STEPS = {"sentence": 1500, "layers": 300}
HUMAN_STEPS = 300


def llm_votes(cell: Cell, seed: int) -> np.ndarray:
    """The LLMs' own votes on the evaluated rows; NaN in rows without any."""
    shares = votes_to_scores(cell.split.votes_evaluation, cell.classes)[cell.evaluated]
    if np.isnan(shares).all():
        raise LookupError("no evaluated row has a vote")
    return shares


def mlp_human(kind: str):
    """Train the head on the human labels alone."""

    def fit_predict(cell: Cell, seed: int) -> np.ndarray:
        x, evaluated = cell_features(cell, kind)
        own = np.eye(len(cell.classes))[cell.human_codes]
        head = new_head(x.shape[1], len(cell.classes), seed)
        return predict(distil(head, x[cell.human], own, HUMAN_STEPS, seed), evaluated)

    return fit_predict


def distillation(kind: str, then_human: bool):
    """Train with cross-entropy on the vote shares, optionally followed by a human stage."""

    def fit_predict(cell: Cell, seed: int) -> np.ndarray:
        return _distilled(cell, seed, cell.shares, kind, then_human)

    return fit_predict


def joint_cross_entropy(cell: Cell, seed: int) -> np.ndarray:
    """Train on votes and human labels in each step."""
    x, evaluated = cell_features(cell, "sentence")
    shares = cell.shares
    voted = ~np.isnan(shares[:, 0])
    head = new_head(x.shape[1], len(cell.classes), seed)
    human = (x[cell.human], cell.human_codes)
    joint(head, (x[voted], shares[voted]), human, STEPS["sentence"], seed)
    return predict(head, evaluated)


def forward_correction(cell: Cell, seed: int) -> np.ndarray:
    """Distil through the confusion matrix of the votes, then run a human stage."""
    shares = cell.shares
    both = ~np.isnan(shares[cell.human, 0])
    confusion = smoothed_confusion(cell.human_codes[both], shares[cell.human][both])
    return _distilled(cell, seed, shares, "sentence", True, forward_loss(confusion))


def dawid_skene(cell: Cell, seed: int) -> np.ndarray:
    """Aggregate votes and human labels (as one more worker) with Dawid-Skene, then distil them."""
    from crowdkit.aggregation import DawidSkene

    votes = cell.split.votes_train.assign(human=cell.y_human)
    answers = votes.melt(ignore_index=False, var_name="worker", value_name="label").dropna()
    answers = answers.rename_axis("task").reset_index()
    estimated = DawidSkene(n_iter=100).fit_predict_proba(answers)
    shares = pd.DataFrame(estimated).reindex(index=range(len(votes)), columns=cell.classes)
    shares.loc[estimated.index] = shares.loc[estimated.index].fillna(0)
    return _distilled(cell, seed, shares.to_numpy(dtype=float), "sentence", True)


def _distilled(cell, seed, shares, kind, then_human, loss=soft_loss):
    x, evaluated = cell_features(cell, kind)
    known = ~np.isnan(shares[:, 0])
    head = new_head(x.shape[1], len(cell.classes), seed)
    distil(head, x[known], shares[known], STEPS[kind], seed, loss)
    if then_human:
        groups = cell.groups[cell.human]
        head = human_stage(head, x[cell.human], cell.human_codes, groups, seed)
    return predict(head, evaluated)


BASELINES = {
    "frozen": {
        **LINEAR,
        "mlp_human": mlp_human("sentence"),
        "mlp_human_layers": mlp_human("layers"),
        "distillation": distillation("sentence", then_human=False),
        "distillation_then_human": distillation("sentence", then_human=True),
        "joint_cross_entropy": joint_cross_entropy,
        "forward_correction": forward_correction,
        "dawid_skene": dawid_skene,
        "annot_mix": annot_mix,
        "distillation_layers": distillation("layers", then_human=False),
        "distillation_then_human_layers": distillation("layers", then_human=True),
        "llm_votes": llm_votes,
    },
    "fine-tuned": {**FINE_TUNED, "llm_votes": llm_votes},
}
