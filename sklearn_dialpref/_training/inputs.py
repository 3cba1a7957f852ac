"""What goes into the student: features, and training rows."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.texts import distinct_texts
from sklearn_dialpref._dialogues.validation import Dialogues
from sklearn_dialpref._labels.targets import Targets, canonical_order

if TYPE_CHECKING:
    from torch import Tensor

    from sklearn_dialpref._student.frozen import FrozenEncoder
    from sklearn_dialpref._student.student import EmbeddedRows, Student

    from .batches import Rows

LEAST_SPREAD = 1e-8  # of a feature; a smaller one is not standardised
POOLINGS = ["layers", "model"]  # "auto" keeps the first one where nothing can tell


def as_feature_tensor(features: NDArray[Any]) -> Tensor:
    """Features as the student takes them."""
    import torch

    # pandas gives read-only arrays, of which torch warns
    return torch.from_numpy(np.require(features, np.float32, "W"))


def warn_of_constant_features(features: NDArray[Any] | None) -> None:
    """Warn where no feature varies enough to be learned from."""
    if features is None or len(features) < 2:
        return
    with np.errstate(over="ignore"):
        spread = np.ptp(features, axis=0).max()
    if spread < LEAST_SPREAD:
        warnings.warn(
            f"no feature of X varies by more than {spread:.1e}, which counts as rounding, so that "
            "there is nothing to learn from them; rescale them, or pass others",
            UserWarning,
            stacklevel=3,
        )


def check_finite_logits(logits: Tensor, inputs: Tensor | EmbeddedRows) -> None:
    """Raise a ValueError that names a row whose logits are no numbers."""
    bad = ~logits.isfinite().all(dim=1)
    if bad.any():
        row = int(bad.int().argmax())
        largest = float(inputs[row : row + 1].abs().max())
        raise ValueError(
            f"row {row} has no finite logits: its features, of up to {largest:.3g} in size, are "
            "too far outside those of training, or the student diverged there; scale X as for "
            "fit, look for outliers, and lower learning_rate if you set it"
        )


def student_and_rows(
    dialogues: Dialogues,
    slots: list[NDArray[Any]],
    targets: Targets,
    source: FrozenEncoder | tuple[Any, int | None, int | None, str],
    device: str,
) -> tuple[Student, Rows]:
    """An untrained student, and the training rows, those with a label, in canonical order.

    The student has an encoder to train, made from ``source`` (encoder, its layers, trainable
    layers, pooling), unless there are features or ``source`` is a frozen encoder.
    """
    import torch

    from sklearn_dialpref._student.encoders import TextEncoder, load_encoder
    from sklearn_dialpref._student.student import Student, embedded_rows

    from .batches import Rows
    from .recipe import WIDTH, dropout_rate
    from .stages import initial_level

    order = canonical_order(dialogues, targets)
    order = order[(targets.has_human | targets.has_score)[order]]
    slots = [slot[order] for slot in slots]
    features = None if dialogues.features is None else dialogues.features[order]
    n_classes = len(targets.classes)
    scores = targets.scores
    if scores is None:
        scores = np.full((len(targets.human), n_classes), np.nan, dtype=np.float32)
    labels: dict[str, Any] = {
        # unnamed dialogues are numbered by where they stood
        "group": dialogues.group[order] if dialogues.has_dialogues else np.arange(len(order)),
        "human": torch.from_numpy(targets.human[order]),
        "scores": torch.from_numpy(scores[order]),
    }
    if targets.possible is not None:
        labels["possible"] = torch.from_numpy(targets.possible[order])
    if features is not None or not isinstance(source, tuple):
        inputs: Tensor | EmbeddedRows
        if features is not None:
            inputs = as_feature_tensor(features)
        else:
            assert not isinstance(source, tuple)
            inputs = embedded_rows(source, *distinct_texts(slots))
        student = Student(
            inputs.shape[1], n_classes, width=WIDTH, dropout=dropout_rate(len(order))
        )
        student.standardise_by(inputs)
        rows = Rows(**labels, features=inputs)
        student.head.set_prior_logits(initial_level(rows))
        return student, rows

    encoder, encoder_layers, trainable_layers, pooling = source
    trained = TextEncoder(load_encoder(encoder, encoder_layers), trainable_layers, pooling)
    texts, index = distinct_texts(slots)
    # mean and spread need a sample only, and encoding all would take as long as an epoch
    sample = np.random.RandomState(0).permutation(len(texts))[:1024]
    embedded = trained.to(device).embed([texts[number] for number in np.sort(sample)])
    contexts = [embedded[:, -trained.n_context :]] * (len(slots) - 1)
    inputs = torch.from_numpy(np.concatenate([embedded, *contexts], axis=1))
    student = Student(
        inputs.shape[1], n_classes, trained, width=WIDTH, dropout=dropout_rate(len(order))
    )
    student.standardise_by(inputs)
    rows = Rows(**labels, texts=texts, index=index, lengths=trained.lengths(texts))
    student.head.set_prior_logits(initial_level(rows))
    return student, rows
