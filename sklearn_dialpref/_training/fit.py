"""From checked inputs to a trained student: the whole method in plain steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import Dialogues
from sklearn_dialpref._labels.targets import Targets, class_weights
from sklearn_dialpref._student.frozen import FrozenEncoder

from .batches import Rows
from .inputs import student_and_rows
from .net import hold_out, seeded
from .recipe import Recipe
from .stages import LabelStats, label_stats, named_loss, plan_stages
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


def fit_students(
    estimator: Any,
    dialogues: Dialogues,
    slots: list[NDArray[Any]],
    targets: Targets,
    *,
    poolings: Sequence[str],
    seed: int,
    device: str,
) -> list[Fit]:
    """A student for each pooling, all from the same seed; none where the teacher is of no use."""
    judged = len(poolings) > 1
    fits = [
        _fit_student(estimator, dialogues, slots, targets, pooling, seed, device, judged=judged)
        for pooling in poolings
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
    *,
    judged: bool,
) -> Fit | None:
    with seeded(seed, device):
        # an untrained student; a frozen encoder embeds each text here, once
        frozen = None
        if dialogues.features is None and estimator.trainable_layers == 0:
            frozen = FrozenEncoder(
                estimator.encoder,
                device,
                pooling,
                estimator.encoder_layers,
                memory=estimator.memory,
                n_jobs=estimator.n_jobs,
                verbose=bool(estimator.verbose),
            )
        source = frozen or (
            estimator.encoder,
            estimator.encoder_layers,
            estimator.trainable_layers,
            pooling,
        )
        student, rows = student_and_rows(dialogues, slots, targets, source, device)
        held_out = np.zeros(len(rows.group), dtype=bool)
        if estimator.early_stopping:
            held_out = hold_out(rows, estimator.validation_fraction, seed)

        # a teacher that leans gravely towards some classes is set right first
        bias = teacher_bias(rows, seed)
        if bias is not None and bias.counts:
            rows = replace(rows, scores=bias.corrected(rows))

        # what the labels at hand allow to learn, and by which rules
        stages = plan_stages(
            estimator.schedule,
            named_loss(estimator.loss),
            has_human=bool(targets.has_human.any()),
            has_llm=bool(targets.has_score.any()),
        )
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
        trained = train_student(student, rows, held_out, stages, recipe, labels, judged=judged)
    return None if trained is None else Fit(pooling, frozen, rows, labels, bias, trained)
