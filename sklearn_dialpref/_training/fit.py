"""From checked inputs to a trained student: the whole method in plain steps."""

from __future__ import annotations

import warnings
from collections import ChainMap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import Dialogues
from sklearn_dialpref._labels.targets import Targets, class_weights
from sklearn_dialpref._student.frozen import FrozenEncoder

from .batches import Rows
from .checkpoints import opened_folder
from .device import seeded
from .identity import fit_identity
from .inputs import student_and_rows
from .net import hold_out
from .progress import FitBar, Part, Workload
from .recipe import Recipe
from .stages import LabelStats, Stage, label_stats, named_loss, plan_stages
from .teacher import TeacherBias, teacher_bias
from .train import Trained, train_student


class Fit(NamedTuple):
    """A trained student, and what it learned from.

    Attributes
    ----------
    pooling : str
        What its head sees of an utterance.
    frozen : FrozenEncoder or None
        The encoder that is not trained, if the student has one.
    rows : Rows
    labels : LabelStats
    bias : TeacherBias or None
    trained : Trained
    """

    pooling: str
    frozen: FrozenEncoder | None
    rows: Rows
    labels: LabelStats
    bias: TeacherBias | None
    trained: Trained


def fit_best_student(
    estimator: Any,
    dialogues: Dialogues,
    slots: list[NDArray[Any]],
    targets: Targets,
    *,
    poolings: Sequence[str],
    seed: int,
    device: str,
) -> tuple[Fit, bool, int]:
    """The student whose pooling serves held-out labels best.

    Returns
    -------
    fit : Fit
    left_out : bool
        Whether the teacher was of no use, so that the student learned without it.
    seed : int
        The one that was used: without ``random_state``, that of the fit that goes on, if one does.
    """
    with _whole_fit(estimator, dialogues, slots, targets, seed, device) as (part, seed):
        fit = partial(_fit_students, estimator, dialogues, slots, poolings, seed, device)
        fits = fit(targets, part)
        left_out = not fits
        if left_out:
            warnings.warn(
                "the LLM's labels say nothing about the human ones: neither they nor a student of "
                "them are better than chance. y_llm is left out; see teacher_report",
                UserWarning,
                stacklevel=3,
            )
            fits = fit(replace(targets, scores=None), part.within("without-llm"))
    return min(fits, key=lambda fit: fit.trained.unseen_loss), left_out, seed


@contextmanager
def _whole_fit(
    estimator: Any,
    dialogues: Dialogues,
    slots: list[NDArray[Any]],
    targets: Targets,
    seed: int,
    device: str,
) -> Iterator[tuple[Part, int]]:
    """The whole of a fit, with its progress bar and checkpoints, and the seed that it takes."""
    with ExitStack() as stack:
        checkpoints = None
        if estimator.checkpoint_dir is not None:
            identity = fit_identity(estimator, dialogues, slots, targets, seed, device)
            folder = opened_folder(estimator.checkpoint_dir, identity, seed, device)
            checkpoints, seed = stack.enter_context(folder)
        accelerator = estimator.accelerator
        is_main = accelerator is None or accelerator.is_main_process
        bar = stack.enter_context(FitBar(bool(estimator.verbose) and is_main))
        yield Part(bar, checkpoints), seed


def _fit_students(
    estimator: Any,
    dialogues: Dialogues,
    slots: list[NDArray[Any]],
    poolings: Sequence[str],
    seed: int,
    device: str,
    targets: Targets,
    part: Part,
) -> list[Fit]:
    """A student for each pooling, all from the same seed; none where the teacher is of no use."""
    judged = len(poolings) > 1
    parts = [part.within(pooling) for pooling in poolings]
    rows = float(targets.has_human.sum()), float(targets.has_score.sum())
    costs = [_costs(estimator, dialogues, targets, own, *rows, judged=judged) for own in parts]
    part.bar.plan(dict(ChainMap(*costs)))
    fits = [
        _fit_student(
            estimator, dialogues, slots, targets, pooling, seed, device, own, judged=judged
        )
        for pooling, own in zip(poolings, parts, strict=True)
    ]
    return [fit for fit in fits if fit is not None]


def _fit_student(
    estimator: Any,
    dialogues: Dialogues,
    slots: list[NDArray[Any]],
    targets: Targets,
    pooling: str,
    seed: int,
    device: str,
    part: Part,
    *,
    judged: bool,
) -> Fit | None:
    with seeded(seed, device):
        # an untrained student; a frozen encoder embeds each text here, once
        frozen = None
        if dialogues.features is None and estimator.trainable_layers == 0:
            frozen = _frozen_encoder(estimator, pooling, device)
        source = frozen or (
            estimator.encoder,
            estimator.encoder_layers,
            estimator.trainable_layers,
            pooling,
        )
        with _encoding(frozen, part):
            student, rows = student_and_rows(dialogues, slots, targets, source, device)
        part.check_space(student)
        held_out = np.zeros(len(rows.group), dtype=bool)
        if estimator.early_stopping:
            held_out = hold_out(rows, estimator.validation_fraction, seed)

        # a teacher that leans gravely towards some classes is set right first
        bias = teacher_bias(rows, seed)
        if bias is not None and bias.counts:
            rows = replace(rows, scores=bias.corrected(rows))

        # what the labels at hand allow to learn, and by which rules
        stages = _stages(estimator, targets)
        recipe = Recipe.of(
            estimator,
            seed,
            device,
            n_inputs=len(student.mean),
            n_classes=len(targets.classes),
            frozen=student.encoder is None,
            multilabel=targets.multilabel,
        )
        labels = label_stats(
            rows,
            targets.classes,
            class_weights(targets, estimator.class_weight),
            with_confusion=any(stage.llm == "forward_corrected" for stage in stages),
        )

        # from the teacher, then from people, as far as held-out labels bear it
        if rows.lengths is not None:  # which tell how long the rows take to train on
            human, llm = (
                rows.cost(np.flatnonzero(r)).sum() for r in (rows.has_human, rows.has_score)
            )
            costs = _costs(estimator, dialogues, targets, part, human, llm, judged=judged)
            part.bar.refine(costs)
        trained = train_student(
            student, rows, held_out, stages, recipe, labels, part, judged=judged
        )
    return None if trained is None else Fit(pooling, frozen, rows, labels, bias, trained)


def _frozen_encoder(estimator: Any, pooling: str, device: str) -> FrozenEncoder:
    return FrozenEncoder(
        estimator.encoder,
        device,
        pooling,
        estimator.encoder_layers,
        memory=estimator.memory,
        n_jobs=estimator.n_jobs,
    )


def _stages(estimator: Any, targets: Targets) -> list[Stage]:
    return plan_stages(
        estimator.schedule,
        named_loss(estimator.loss),
        has_human=bool(targets.has_human.any()),
        has_llm=bool(targets.has_score.any()),
    )


def _costs(
    estimator: Any,
    dialogues: Dialogues,
    targets: Targets,
    part: Part,
    human: float,
    llm: float,
    *,
    judged: bool,
) -> dict[str, float]:
    """What a student's parts cost, by rows of both kinds in utterances of up to 32 tokens."""
    workload = Workload.of(
        estimator, targets, human, llm, precomputed=dialogues.features is not None, judged=judged
    )
    costs = workload.costs(_stages(estimator, targets))
    return {part.within(name).name: cost for name, cost in costs.items()}


@contextmanager
def _encoding(frozen: Any, part: Part) -> Iterator[None]:
    """Have a frozen encoder move the bar on with each batch that it embeds in the block."""
    with part.bar.part(part.within("encode").name) as advance:

        def on_share(share: float) -> None:
            part.bar.describe("encode")
            advance(share)

        if frozen is None:
            yield
            return
        frozen.on_share = on_share
        try:
            yield
        finally:
            frozen.on_share = None  # it stays with the student, who may be pickled
