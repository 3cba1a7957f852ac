"""Training: the skorch net, and how it goes through the stages of a schedule."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping, LRScheduler
from skorch.helper import predefined_split
from skorch.utils import noop
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from ._batches import DialogueBatches, Rows, segments
from ._calibration import scale_and_shift
from ._stages import LabelFacts, Recipe, Stage, StageLoss
from ._student import Student, TextEncoder
from .losses import POINTWISE

__all__ = ["hold_out", "seeded", "train"]

PATIENCE = 3  # epochs without improvement, with early_stopping
HEAD_LEARNING_RATE = 3e-4  # beside a fine-tuned encoder
HUMAN_SHARE = 8  # in a joint stage, batch_size / 8 human-labelled rows join each batch
FROZEN_STEPS = 200  # at least, in a first stage on fixed features
FINE_TUNED_STEPS = 90  # at least, in a first stage that trains the encoder
WEIGHT_DECAY = {"frozen": 0.1, "fine_tuned": 0.01}
FROZEN_JOINT_STEPS = 150  # at least, in a joint stage that follows another
AFTER_DISTILLATION = 0.2  # share of the learning rate in a joint stage that follows another
CALIBRATION_ROWS = 2048
WARMUP = 0.1  # share of a stage's steps in which the learning rate rises


# -- training -------------------------------------------------------------------------------


class StageEnd(Exception):
    """A callback asked to end the stage."""


class Interrupts:
    """Tells a Ctrl-C from a callback's KeyboardInterrupt, by the signal; Python acts as ever."""

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
            self.notify("on_train_begin", X=dataset, y=None)
            with suppress(StageEnd):
                self.fit_loop(dataset)
            self.notify("on_train_end", X=dataset, y=None)
        self._interrupts = None

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
            sizes.append(len(step["y_pred"]))
            self.history.record_batch(prefix + "_loss", losses[-1])
            self.history.record_batch(prefix + "_batch_size", sizes[-1])
            self.notify("on_batch_end", batch=batch, training=training, **step)
        self.history.record(prefix + "_batch_count", len(losses))


class Progress(Callback):
    """One tqdm bar over all stages."""

    def __init__(self, bar: Any, stage: str) -> None:
        self.bar = bar
        self.stage = stage

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.bar.set_description(f"{self.stage} {len(net.history)}/{net.max_epochs}")

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        if training:
            self.bar.update(1)
            self.bar.set_postfix(loss=f"{net.history[-1, 'batches', -1, 'train_loss']:.3f}")


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Torch's random state set for the block, and put back after it."""
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


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
    """Batches of a stage from the rows in ``member``; None if none of them takes part."""

    def batches(
        taking_part: NDArray[np.bool_], *, human: bool, budget: int, **others: Any
    ) -> DialogueBatches:
        chosen = np.flatnonzero(taking_part)
        segment = np.full(len(rows.group), -1)
        if human:
            segment[chosen] = np.arange(len(chosen))
        elif len(chosen):
            segment[chosen] = segments(rows.group[chosen], rows.cost(chosen), batch_size)
        return DialogueBatches(
            rows, segment, budget, human=human, rng=rng, encoder=encoder, **others
        )

    human = member & rows.has_human
    if stage.llm is None:
        return batches(human, human=True, budget=batch_size) if human.any() else None
    llm = member & rows.has_score
    if not llm.any():
        return None
    beside = None
    if stage.human and human.any():
        beside = batches(human, human=True, budget=max(1, batch_size // HUMAN_SHARE))
    return batches(llm, human=False, budget=batch_size, beside=beside)


def auto_epochs(stage: Stage, n_batches: int, *, first: bool, frozen: bool) -> int:
    """Epochs of a stage where ``max_epochs`` leaves them open; see the estimator's notes."""
    if frozen and first:
        return max(15, -(-FROZEN_STEPS // n_batches))
    if frozen:
        return 20 if stage.llm is None else max(3, -(-FROZEN_JOINT_STEPS // n_batches))
    if stage.llm is not None:
        return max(1, -(-FINE_TUNED_STEPS // n_batches)) if first else 1
    return max(6, -(-FINE_TUNED_STEPS // n_batches)) if first else 3


def train(
    student: Student,
    rows: Rows,
    held_out: NDArray[np.bool_],
    stages: Sequence[Stage],
    recipe: Recipe,
    labels: LabelFacts,
) -> tuple[DialogueNet, list[dict[str, Any]]]:
    """Train the student through the stages; the caller has seeded torch.

    Parameters
    ----------
    student : Student
        Trained in place.
    rows : Rows
    held_out : ndarray of bool, shape (n,)
        Rows for early stopping, which are not trained on.
    stages : sequence of Stage
    recipe : Recipe
    labels : LabelFacts

    Returns
    -------
    net : DialogueNet
        Of the last stage.
    history : list of dict
        One entry per epoch: stage, epoch, losses, learning rate and duration in seconds.
    """
    encoder = student.encoder
    plans = []
    for number, stage in enumerate(stages):
        rng = np.random.RandomState((recipe.seed + number) % 2**32)
        batches = stage_batches(rows, ~held_out, stage, recipe.batch_size, encoder, rng)
        if batches is None:
            raise ValueError(
                f"stage {stage.name!r} has no row to train on: all rows with its labels are held "
                "out for early stopping; label more dialogues, or lower validation_fraction"
            )
        valid_stage = replace(stage, llm=None) if stage.human else stage
        valid = stage_batches(rows, held_out, valid_stage, recipe.batch_size, encoder, None)
        epochs = recipe.max_epochs or auto_epochs(
            stage, batches.n_batches(), first=number == 0, frozen=encoder is None
        )
        plans.append((stage, batches, valid, epochs))

    history: list[dict[str, Any]] = []
    total = sum(epochs * batches.n_batches() for _, batches, _, epochs in plans)
    with tqdm(total=total, unit="step", disable=not recipe.verbose) as bar:
        for stage, batches, valid, epochs in plans:
            later = bool(history) and stage.llm is not None
            rate = recipe.learning_rate * (AFTER_DISTILLATION if later else 1.0)
            settings = replace(recipe, learning_rate=rate)
            net = _stage_net(student, stage, valid, epochs, batches.n_batches(), settings, labels)
            net.callbacks = [*net.callbacks, ("progress", Progress(bar, stage.name))]
            net.run(batches)
            history.extend(_history_rows(net, stage, len(history)))
            if stage.llm is not None and stage.llm not in POINTWISE:
                calibrate(net, batches, level=not stage.human)
    net.callbacks = [named for named in net.callbacks if named[0] != "progress"]
    return net, history


def _stage_net(
    student: Student,
    stage: Stage,
    valid: DialogueBatches | None,
    epochs: int,
    n_batches: int,
    recipe: Recipe,
    labels: LabelFacts,
) -> DialogueNet:
    total = epochs * n_batches
    warm = max(1.0, WARMUP * total)

    def rate(step: int) -> float:
        return min((step + 1) / warm, max(0.0, (total - step) / max(1.0, total - warm)))

    callbacks: list[Any] = [
        ("schedule", LRScheduler(LambdaLR, lr_lambda=rate, step_every="batch")),
        ("clip", GradientNormClipping(1.0)),
    ]
    if recipe.early_stopping and valid is not None:
        callbacks.append(("stop", EarlyStopping(patience=PATIENCE, load_best=True, sink=noop)))
    callbacks.extend((f"user_{at}", clone(c)) for at, c in enumerate(recipe.callbacks))
    frozen = student.encoder is None
    return DialogueNet(
        student,
        criterion=StageLoss(stage, recipe, labels),
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=WEIGHT_DECAY["frozen" if frozen else "fine_tuned"],
        optimizer__param_groups=[("encoder.*", {"lr": recipe.learning_rate})],
        lr=recipe.learning_rate if frozen else max(HEAD_LEARNING_RATE, recipe.learning_rate),
        max_epochs=epochs,
        batch_size=None,
        train_split=None if valid is None else predefined_split(valid),
        callbacks=callbacks,
        callbacks__print_log=None,
        device=recipe.device,
        verbose=0,
    )


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


def calibrate(net: DialogueNet, batches: DialogueBatches, *, level: bool) -> None:
    """Fit the scale of the logits, and with ``level`` a constant per class, to teacher scores.

    On at least ``CALIBRATION_ROWS`` scored rows, if there are so many.
    """
    logits, scores, seen = [], [], 0
    for inputs, target in batches:
        output = net.evaluation_step((inputs, None), training=False)
        logits.append(output[: len(target["scores"])].cpu().double())
        scores.append(target["scores"].double())
        seen += len(target["scores"])
        if seen >= CALIBRATION_ROWS:
            break
    scale, shift = scale_and_shift(
        torch.cat(logits), torch.cat(scores), multilabel=batches.rows.multilabel, level=level
    )
    net.module_.rescale(scale, shift.float().to(net.device))
