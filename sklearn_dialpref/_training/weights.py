"""A student's logits of rows, and its weights between two states."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklearn_dialpref._student.student import Student, embedded_rows, in_parts

from .batches import Rows
from .calibration import IMPOSSIBLE


def logits_of(student: Student, rows: Rows, chosen: NDArray[np.bool_]) -> Tensor:
    """Logits of the chosen rows, (n_chosen, n_classes), next to nothing where impossible."""
    student.eval()
    with torch.inference_mode():
        inputs: Iterable[Tensor]
        if rows.features is not None:
            inputs = in_parts(rows.features, np.flatnonzero(chosen))
        else:
            assert student.encoder is not None and rows.index is not None
            used, places = np.unique(rows.index[chosen], return_inverse=True)
            texts = [rows.texts[number] for number in used[used >= 0]]
            places = places.reshape(-1, rows.index.shape[1]) - int((used < 0).any())
            inputs = in_parts(embedded_rows(student.encoder, texts, places))
        device = student.mean.device
        parts = [student(part.to(device)).cpu() for part in inputs]
    logits = torch.cat(parts).clone()
    if rows.possible is not None:
        logits[~rows.possible[chosen]] = IMPOSSIBLE
    return logits


def between(
    before: dict[str, Tensor], after: dict[str, Tensor], share: float
) -> dict[str, Tensor]:
    """The weights that lie this share of the way from one state of a student to another."""
    # buffers such as position ids are whole numbers, and the same in both
    return {
        name: torch.lerp(before[name].to(new.device), new, share)
        if new.is_floating_point()
        else new
        for name, new in after.items()
    }


def state_of(student: Student) -> dict[str, Tensor]:
    """A copy of its weights."""
    return {name: weight.detach().clone() for name, weight in student.state_dict().items()}
