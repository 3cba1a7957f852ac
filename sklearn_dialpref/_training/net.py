"""Training: the skorch net, and how it goes through the stages of a schedule."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping, LRScheduler
from skorch.helper import predefined_split
from skorch.utils import noop
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from sklearn_dialpref._student.encoders import TextEncoder
from sklearn_dialpref._student.student import Student

from .accelerated import SharesEmbedding
from .batches import DialogueBatches, Rows, segments
from .calibration import scale_and_shift
from .progress import Part, ShowsProgress
from .recipe import (
    CALIBRATION_ROWS,
    JOINT_HUMAN_SHARE,
    LARGEST_GRADIENT,
    PATIENCE,
    RATE_BESIDE_ENCODER,
    Recipe,
    auto_epochs,
    rate_after,
    rate_share,
    weight_decay,
)
from .stage_checkpoints import StageCheckpoints, finish_stage, restore_stage
from .stages import LabelStats, Stage, StageLoss, among_possible

# -- training -------------------------------------------------------------------------------


class StageEnd(Exception):
    """A callback asked to end the stage."""


class Interrupts:
    """Tells a Ctrl-C from a callback's KeyboardInterrupt by its signal, which acts as ever."""

    def __init__(self) -> None:
        self.seen = False

    def __enter__(self) -> Interrupts:
        self.previous = signal.getsignal(signal.SIGINT)
        self.watching = (
            callable(self.previous) and threading.current_thread() is threading.main_thread()
        )
        if self.watching:
            signal.signal(signal.SIGINT, self._notice)
        return self

    def __exit__(self, *error: object) -> None:
        if self.watching:
            signal.signal(signal.SIGINT, self.previous)

    def _notice(self, number: int, frame: Any) -> None:
        self.seen = True
        self.previous(number, frame)  # type: ignore[operator, misc]


class DialogueNet(NeuralNet):
    """A skorch net whose training Ctrl-C really stops."""

    _interrupts: Interrupts | None = None

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt:
            if self._interrupts is None or self._interrupts.seen:
                raise
            # how skorch's callbacks, such as EarlyStopping, end a training
            raise StageEnd from None

    def run(self, dataset: DialogueBatches) -> None:
        """Train; skorch's own ``fit`` would swallow a KeyboardInterrupt."""
        self.initialize()
        with Interrupts() as self._interrupts:
            with suppress(StageEnd):
                self.notify("on_train_begin", X=dataset, y=None)
                # a checkpoint can have epochs that are done
                self.fit_loop(dataset, epochs=self.max_epochs - len(self.history))
            with suppress(StageEnd):
                self.notify("on_train_end", X=dataset, y=None)
        self._interrupts = None

    def check_weights(self) -> None:
        """Raise a ValueError where weights are not finite, as after a last step too far."""
        for weight in self.module_.parameters():
            if not weight.isfinite().all():
                raise self._divergence("weights", float(weight.detach().sum()))

    def _divergence(self, what: str, value: float) -> ValueError:
        number = "NaN" if math.isnan(value) else "infinite"
        return ValueError(
            f"the {what} became {number} in epoch {len(self.history)} of stage "
            f"{self.criterion_.stage!r}: lower learning_rate, which is {self.lr:g} here, or look "
            "for extreme values in X, class_weight, margin_scale, loss_weight and pair_weight, "
            "and for a loss of your own that is not finite"
        )

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """As skorch's, but a batch counts by its rows and not by its tensors."""
        if iterator is None:
            return
        losses, sizes = [], []
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            losses.append(step["loss"].item())
            if not math.isfinite(losses[-1]):
                raise self._divergence("loss", losses[-1])
            sizes.append(len(step["y_pred"]))
            self.history.record_batch(prefix + "_loss", losses[-1])
            self.history.record_batch(prefix + "_batch_size", sizes[-1])
            self.notify("on_batch_end", batch=batch, training=training, **step)
        self.history.record(prefix + "_batch_count", len(losses))


class AcceleratedNet(SharesEmbedding, DialogueNet):
    """A net that is trained by several processes together."""


def hold_out(rows: Rows, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Rows of the dialogues that early stopping watches, some of them human-labelled."""
    held_out = np.zeros(len(rows.group), dtype=bool)
    rng = np.random.RandomState(seed)
    with_human = np.unique(rows.group[rows.has_human])
    others = np.setdiff1d(rows.group, with_human)
    for groups in (with_human, others):
        n_held = int(np.ceil(fraction * len(groups)))
        held_out |= np.isin(rows.group, rng.permutation(groups)[:n_held])
    return held_out


def stage_batches(
    rows: Rows,
    member: NDArray[np.bool_],
    stage: Stage,
    batch_size: int,
    encoder: TextEncoder | None,
    rng: np.random.RandomState | None,
) -> DialogueBatches | None:
    """Batches of a stage from the rows in ``member``; None if a term of its loss has no row."""
    human, llm = member & rows.has_human, member & rows.has_score
    if (stage.human and not human.any()) or (stage.llm is not None and not llm.any()):
        return None

    def human_batches(budget: int) -> DialogueBatches:
        each = np.where(human, np.cumsum(human) - 1, -1)
        return DialogueBatches(rows, each, budget, human=True, rng=rng, encoder=encoder)

    if stage.llm is None:
        return human_batches(batch_size)
    beside = None
    if stage.human:
        share = min(1.0, human.sum() / llm.sum())
        beside = human_batches(max(1, batch_size // JOINT_HUMAN_SHARE, round(batch_size * share)))
    # a segment of one row has no pair
    chosen = np.flatnonzero(llm)
    segment = np.full(len(llm), -1)
    segment[chosen] = segments(
        rows.group[chosen], rows.cost(chosen), batch_size, least=2 if stage.pairwise else 1
    )
    batches = DialogueBatches(
        rows, segment, batch_size, human=False, rng=rng, encoder=encoder, beside=beside
    )
    if beside is not None:  # where LLM labels are the scarce ones, they come round again
        batches.passes = max(1, round(beside.n_batches() / batches.n_batches()))
    return batches


@dataclass(frozen=True)
class Plan:
    """What a stage trains on, and how long and how fast.

    Attributes
    ----------
    stage : Stage
    batches : DialogueBatches
    valid : DialogueBatches or None
        What early stopping watches.
    epochs : int
    learning_rate : float
        Peak rate of the encoder or, where that is frozen, of the head.
    """

    stage: Stage
    batches: DialogueBatches
    valid: DialogueBatches | None
    epochs: int
    learning_rate: float

    @property
    def steps(self) -> int:
        return self.epochs * self.batches.n_batches()


def plan_training(
    student: Student,
    rows: Rows,
    held_out: NDArray[np.bool_],
    stages: Sequence[Stage],
    recipe: Recipe,
    n_done: int = 0,
) -> list[Plan]:
    """The stages with their batches, before anything is trained.

    Parameters
    ----------
    student : Student
    rows : Rows
    held_out : ndarray of bool, shape (n,)
        Rows that are not trained on; early stopping watches them.
    stages : sequence of Stage
    recipe : Recipe
    n_done : int, default=0
        How many stages the student has gone through before.
    """
    encoder = student.encoder
    plans = []
    for number, stage in enumerate(stages, start=n_done):
        # by the stage's number, so that a fold draws its batches as the stage itself does
        rng = np.random.RandomState((recipe.seed + number) % 2**32)
        batches = stage_batches(rows, ~held_out, stage, recipe.batch_size, encoder, rng)
        if batches is None:
            raise ValueError(
                f"stage {stage.name!r} has no row to train on: all rows with its labels are held "
                "out for early stopping; label more dialogues, or lower validation_fraction"
            )
        valid = None
        if recipe.early_stopping:
            # people decide when a joint stage ends, not the LLM
            watched = replace(stage, llm=None) if stage.human else stage
            valid = stage_batches(rows, held_out, watched, recipe.batch_size, encoder, None)
        first = number == 0
        beside = batches.beside
        epochs = recipe.max_epochs or auto_epochs(
            batches.n_batches(),
            teacher=stage.llm is not None,
            first=first,
            frozen=encoder is None,
            n_human_batches=0 if beside is None else beside.n_batches(),
        )
        share = 1.0
        if not first and stage.llm is not None:
            n_human = 0 if beside is None else len(beside.members)
            share = rate_after(n_human, len(batches.members))
        plans.append(Plan(stage, batches, valid, epochs, share * recipe.learning_rate))
    return plans


def train(
    student: Student, plans: Sequence[Plan], recipe: Recipe, labels: LabelStats, part: Part
) -> tuple[DialogueNet, list[dict[str, Any]]]:
    """Train the student through the stages; the caller has seeded torch.

    Parameters
    ----------
    student : Student
        It is trained in place.
    plans : sequence of Plan
    recipe : Recipe
    labels : LabelStats
    part : Part
        Its stages are parts of it.

    Returns
    -------
    net : DialogueNet
        The net of the last stage.
    history : list of dict
        One entry per epoch: epoch, stage, losses and duration in seconds.
    """
    history: list[dict[str, Any]] = []
    for plan in plans:
        net, stage = _stage_net(student, plan, recipe, labels), part.within(plan.stage.name)
        with stage.bar.part(stage.name) as advance:
            progress = ShowsProgress(stage.bar, advance, plan.steps)
            if stage.checkpoints is None:
                _train_stage(net, plan, labels, [progress])
            elif not restore_stage(stage.checkpoints, stage.name, net, student):
                saving = StageCheckpoints(stage.checkpoints, stage.name, student, plan.batches)
                _train_stage(net, plan, labels, [progress, saving])
                finish_stage(stage.checkpoints, stage.name, net, student)
        history.extend(_history_rows(net, plan.stage, len(history)))
    return net, history


def _train_stage(
    net: DialogueNet, plan: Plan, labels: LabelStats, callbacks: Sequence[Callback]
) -> None:
    """Train, with some callbacks that the net does not keep."""
    kept = net.callbacks
    net.callbacks = [*kept, *((type(callback).__name__, callback) for callback in callbacks)]
    net.run(plan.batches)
    if plan.stage.pairwise:
        # human labels in the stage have set the level of their classes already
        free = labels.unlabelled if plan.stage.human else torch.ones_like(labels.unlabelled)
        calibrate(net, plan.batches, free)
    net.check_weights()
    net.callbacks = kept


def _stage_net(student: Student, plan: Plan, recipe: Recipe, labels: LabelStats) -> DialogueNet:
    net_class: Callable[..., DialogueNet] = DialogueNet
    if recipe.accelerator is not None:
        net_class = partial(AcceleratedNet, accelerator=recipe.accelerator)
    peak = plan.learning_rate
    rate = partial(rate_share, total=plan.steps)
    callbacks: list[Any] = [
        ("schedule", LRScheduler(LambdaLR, lr_lambda=rate, step_every="batch")),
        ("clip", GradientNormClipping(LARGEST_GRADIENT)),
    ]
    if recipe.early_stopping and plan.valid is not None:
        callbacks.append(("stop", EarlyStopping(patience=PATIENCE, load_best=True, sink=noop)))
    callbacks.extend((f"user_{number}", clone(c)) for number, c in enumerate(recipe.callbacks))
    # a new head beside a pretrained encoder has farther to go, and takes larger steps
    frozen = student.encoder is None
    return net_class(
        student,
        criterion=StageLoss(plan.stage, recipe, labels),
        optimizer=torch.optim.AdamW,
        optimizer__fused=True,
        optimizer__weight_decay=weight_decay(frozen=frozen),
        optimizer__param_groups=[("encoder.*", {"lr": peak})],
        lr=peak if frozen else max(RATE_BESIDE_ENCODER * recipe.head_lr_multiplier, peak),
        max_epochs=plan.epochs,
        batch_size=None,
        train_split=None if plan.valid is None else predefined_split(plan.valid),
        callbacks=callbacks,
        callbacks__print_log=None,
        device=recipe.device,
        verbose=0,
    )


def ready_net(student: Student, device: str) -> DialogueNet:
    """A net to predict with, of a student that is trained already."""
    return DialogueNet(
        student, criterion=nn.Identity, train_split=None, callbacks=None, device=device, verbose=0
    ).initialize()


def _history_rows(net: DialogueNet, stage: Stage, before: int) -> list[dict[str, Any]]:
    """Epochs of a stage as plain records."""
    return [
        {
            "epoch": before + number,
            "stage": stage.name,
            "train_loss": float(row["train_loss"]),
            "valid_loss": float(row.get("valid_loss", float("nan"))),
            "duration": float(row["dur"]),
        }
        for number, row in enumerate(net.history, start=1)
        if "train_loss" in row
    ]


# -- scale and level, which pairs do not identify -------------------------------------------


def calibrate(net: DialogueNet, batches: DialogueBatches, free: Tensor) -> None:
    """Fit the scale of the logits, and a constant per free class, to teacher scores.

    On at least ``CALIBRATION_ROWS`` scored rows, if there are so many.
    """
    logits, scores, seen = [], [], 0
    for inputs, target in batches:
        output = net.evaluation_step((inputs, None), training=False)
        output = among_possible(output.cpu(), target.get("possible"))
        logits.append(output[: len(target["scores"])].double())
        scores.append(target["scores"].double())
        seen += len(target["scores"])
        if seen >= CALIBRATION_ROWS:
            break
    scale, shift = scale_and_shift(
        torch.cat(logits), torch.cat(scores), multilabel=batches.rows.multilabel, free=free
    )
    net.module_.rescale(scale, shift.float().to(net.device))
