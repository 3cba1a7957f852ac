"""The stages of a schedule, and the loss of each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from sklearn_dialpref.losses import LOSSES, POINTWISE, noise_reduced

from .calibration import IMPOSSIBLE

if TYPE_CHECKING:
    from sklearn_dialpref._dialogues.validation import Dialogues
    from sklearn_dialpref._labels.targets import Targets

    from .batches import Rows
    from .recipe import Recipe

MOST_NAMES = 10  # of classes in a warning

# -- stages ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """One part of a schedule: which terms the loss has.

    Attributes
    ----------
    name : str
        As in ``history_``.
    llm : str, callable or None
        Loss on the teacher's scores; "loss" stands for the estimator's parameter.
    human : bool
        Whether the cross-entropy on human labels is a term.
    pairs : bool, default=False
        Whether the noise-reduced pair loss may be a term beside a pointwise ``llm``.
    """

    name: str
    llm: str | Callable[..., Tensor] | None
    human: bool
    pairs: bool = False

    @property
    def pairwise(self) -> bool:
        """Whether its loss on the teacher reads pairs; a function of the user's is held to."""
        return self.llm is not None and not (isinstance(self.llm, str) and self.llm in POINTWISE)


HUMAN_STAGE = Stage("finetune", None, True)

SCHEDULES: dict[str, tuple[Stage, ...]] = {
    "pretrain_finetune": (Stage("pretrain", "loss", False, pairs=True), HUMAN_STAGE),
    "joint": (Stage("joint", "loss", True),),
    "distill_then_joint": (
        Stage("distill", "soft_cross_entropy", False, pairs=True),
        Stage("joint", "loss", True),
    ),
}


def named_loss(loss: str | Callable[..., Tensor]) -> str | Callable[..., Tensor]:
    """The name of a function of ``LOSSES``; anything else as it is."""
    return next((name for name, function in LOSSES.items() if function is loss), loss)


def check_pairs(loss: str | Callable[..., Tensor], dialogues: Dialogues, targets: Targets) -> None:
    """Raise a ValueError where a pair loss is to learn from LLM labels without dialogues."""
    loss = named_loss(loss)
    pairwise = isinstance(loss, str) and loss not in POINTWISE
    if pairwise and targets.has_score.any() and not dialogues.has_dialogues:
        raise ValueError(
            f"loss={loss!r} compares utterances of the same dialogue, but X names no dialogues, "
            "so there are no pairs: pass a DataFrame with 'dialogue_id', or choose a pointwise "
            "loss such as loss='soft_cross_entropy'"
        )


def plan_stages(
    schedule: str, loss: str | Callable[..., Tensor], *, has_human: bool, has_llm: bool
) -> list[Stage]:
    """The stages that the labels at hand allow.

    Without LLM labels one stage on the human labels is left; without human labels the stages on
    LLM labels are, each without its human term.
    """
    if not has_llm:
        return [HUMAN_STAGE]
    stages = [
        replace(stage, llm=loss if stage.llm == "loss" else stage.llm)
        for stage in SCHEDULES[schedule]
    ]
    if not has_human:
        stages = [replace(stage, human=False) for stage in stages if stage.llm is not None]
    return stages


# -- the loss of a stage --------------------------------------------------------------------


class StageLoss(nn.Module):
    """Cross-entropy on the human rows of a batch + weight · the LLM losses on the others.

    The batch's rows are ``scores``' rows first, ``human``'s after them.
    """

    class_weight: Tensor | None
    absent: Tensor
    confusion: Tensor | None

    def __init__(self, stage: Stage, recipe: Recipe, labels: LabelStats) -> None:
        super().__init__()
        self.stage = stage.name
        llm = LOSSES[stage.llm] if isinstance(stage.llm, str) else stage.llm
        self.llm: Callable[..., Tensor] | None = llm
        self.pairwise = stage.pairwise
        self.weight = recipe.loss_weight if stage.human else 1.0
        self.pair_weight = recipe.pair_weight if stage.pairs and not stage.pairwise else 0.0
        self.options: dict[str, Any] = {
            "margin_scale": recipe.margin_scale,
            "min_gap": recipe.min_gap,
            "smoothing": recipe.smoothing,
            "multilabel": labels.multilabel,
        }
        self.register_buffer("class_weight", labels.class_weight)
        self.register_buffer("absent", labels.absent)
        self.register_buffer("confusion", labels.confusion)

    def forward(self, logits: Tensor, target: dict[str, Tensor]) -> Tensor:
        scores, human = target["scores"], target["human"]
        # a batch of which no term has a row still needs a gradient
        loss = logits.sum() * 0.0
        masked_logits = among_possible(logits, target.get("possible"))
        if len(human):
            loss = loss + self.human_loss(masked_logits[len(scores) :], human)
        if self.llm is not None and len(scores):
            scored = slice(len(scores))
            # a class that a row cannot have stands in no order to its other classes
            ordered_scores = scores
            if "possible" in target:
                ordered_scores = scores.masked_fill(~target["possible"][scored], float("nan"))
            options: dict[str, Any] = {**self.options, "confusion": self.confusion}
            # differences with a masked logit would be so large that nothing else counts
            if self.pairwise:
                teacher = self.llm(logits[scored], ordered_scores, target["pairs"], **options)
            else:
                teacher = self.llm(masked_logits[scored], scores, target["pairs"], **options)
            if self.pair_weight:
                pairs = noise_reduced(logits[scored], ordered_scores, target["pairs"], **options)
                teacher = teacher + self.pair_weight * pairs
            loss = loss + self.weight * teacher
        return loss

    def human_loss(self, logits: Tensor, human: Tensor) -> Tensor:
        """(Weighted) cross-entropy; entries without a label are left out."""
        if human.ndim == 2:
            known = ~human.isnan()
            weight = self.class_weight
            weight = None if weight is None else weight.expand_as(human)[known]
            return binary_cross_entropy_with_logits(logits[known], human[known], pos_weight=weight)
        # torch divides by the sum of the weights, which is 0 here
        if self.class_weight is not None and not self.class_weight[human].any():
            return logits.sum() * 0.0
        # a class that only the LLM knows must not be unlearned for want of human labels
        logits = logits.masked_fill(self.absent, float("-inf"))
        return cross_entropy(logits, human, weight=self.class_weight)


def among_possible(logits: Tensor, possible: Tensor | None) -> Tensor:
    """The logits, next to nothing where a class is not possible."""
    return logits if possible is None else logits.masked_fill(~possible, IMPOSSIBLE)


@dataclass(frozen=True)
class LabelStats:
    """What the losses need to know of all labels together.

    Attributes
    ----------
    multilabel : bool
    class_weight : Tensor of shape (K,), or None
    unlabelled : Tensor of bool, shape (K,)
        Classes without a human label; multilabel: labels without a human entry.
    absent : Tensor of bool, shape (K,)
        Those of them that the teacher gives to some row.
    confusion : Tensor, or None
        Of the teacher, for ``forward_corrected``.
    """

    multilabel: bool
    class_weight: Tensor | None
    unlabelled: Tensor
    absent: Tensor
    confusion: Tensor | None


def label_stats(
    rows: Rows,
    classes: NDArray[Any],
    class_weight: NDArray[np.float64] | None,
    *,
    with_confusion: bool,
) -> LabelStats:
    weight = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float32)
    unlabelled = unlabelled_classes(rows)
    absent = unlabelled & (rows.scores > 0).any(dim=0)
    confusion = teacher_confusion(rows, classes) if with_confusion else None
    return LabelStats(rows.multilabel, weight, unlabelled, absent, confusion)


def warn_of_classes_without_labels(rows: Rows, classes: NDArray[Any], labels: LabelStats) -> None:
    """Say what becomes of classes without a human label, or multilabel without a positive one."""
    if not rows.has_human.any():
        return
    without = ~(rows.human == 1).any(dim=0) if rows.multilabel else labels.unlabelled
    kind = "positive example" if rows.multilabel else "example"
    outcomes = {
        "keeps the level that the LLM gave it": labels.absent,
        "will hardly be predicted": without & ~labels.absent,
    }
    parts = [
        f"of {_some_names(classes[which.numpy()])}, so that each {outcome}"
        for outcome, which in outcomes.items()
        if which.any()
    ]
    if parts:
        warnings.warn(
            f"y_human has no {kind} {', nor '.join(parts)}; label some utterances of them",
            UserWarning,
            stacklevel=3,
        )


def _some_names(classes: NDArray[Any]) -> str:
    rest = len(classes) - MOST_NAMES
    return f"{classes[:MOST_NAMES].tolist()}" + (f" and {rest} more" if rest > 0 else "")


def unlabelled_classes(rows: Rows) -> Tensor:
    if rows.multilabel:
        return rows.human.isnan().all(dim=0)
    return torch.bincount(rows.human[rows.human >= 0], minlength=rows.scores.shape[1]) == 0


def initial_level(rows: Rows) -> Tensor:
    """Logits to begin with, of shape (K,): multilabel, how frequent each label is.

    Most labels are rare; a student that began with even chances would first have to unlearn them.
    """
    if not rows.multilabel:
        return torch.zeros(rows.scores.shape[1])
    scored = ~rows.scores.isnan().all(dim=0)
    shares = torch.where(scored, rows.scores, rows.human)
    n = (~shares.isnan()).sum(dim=0)
    n[n == 0] = len(shares)  # nobody is left who knows the label: it is one that nobody gave
    # half a positive and half a negative more: the level of a label that nobody gave is finite
    return ((shares.nansum(dim=0) + 0.5) / (n + 1)).logit()


def teacher_confusion(rows: Rows, classes: NDArray[Any]) -> Tensor:
    """``T[k, l] = P(teacher says l | class k)`` on the rows with both labels, smoothed."""
    if rows.multilabel:
        columns = []
        for name, human, score in zip(classes, rows.human.T, rows.scores.T, strict=True):
            both = ~human.isnan() & ~score.isnan()
            teacher_shares = torch.stack([1 - score[both], score[both]], dim=1)
            where = f" for the label {str(name)!r}"
            columns.append(_smoothed_confusion(human[both].long(), teacher_shares, where))
        return torch.stack(columns)
    both = (rows.human >= 0) & ~rows.scores.isnan().any(dim=1)
    return _smoothed_confusion(rows.human[both], rows.scores[both])


def _smoothed_confusion(true: Tensor, teacher_shares: Tensor, where: str = "") -> Tensor:
    if not len(true):
        raise ValueError(
            "loss='forward_corrected' estimates the teacher's confusion on rows that carry both a "
            f"human and an LLM label, but there is no such row{where}; pass y_llm for some "
            "human-labelled rows, or choose another loss"
        )
    n_classes = teacher_shares.shape[1]
    counts = torch.zeros(n_classes, n_classes).index_add_(0, true, teacher_shares)
    return smoothed(counts, counts.diagonal().sum() / counts.sum())


def smoothed(counts: Tensor, accuracy: Tensor) -> Tensor:
    """Rows of counts as shares, after pseudo-counts: as many a row as there are classes.

    They are spread as a teacher of this accuracy that errs evenly would spread them.

    Parameters
    ----------
    counts : Tensor of shape (..., K, K)
    accuracy : Tensor of shape (...)
    """
    n_classes = counts.shape[-1]
    accuracy = accuracy[..., None, None]
    right = torch.eye(n_classes, dtype=torch.bool, device=counts.device)
    counts = counts + n_classes * torch.where(right, accuracy, (1 - accuracy) / (n_classes - 1))
    return counts / counts.sum(dim=-1, keepdim=True)
