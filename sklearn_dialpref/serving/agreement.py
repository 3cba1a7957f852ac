"""How an exported model differs from its classifier, and when that is too much."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from sklearn_dialpref._dialogues.texts import fitted_slots, row_of
from sklearn_dialpref._dialogues.validation import check_dialogues, label_array, wholly_known

from .onnx import OnnxDialogueClassifier

__all__ = ["OnnxReport", "compared", "refuse_if_different", "text_columns"]

TOLERANCE = 1e-4  # of probabilities, in float32
WARM_UP, TIMED = 5, 60  # calls


@dataclass(frozen=True)
class OnnxReport:
    """How an exported model differs from the classifier, on the rows it was checked on.

    Attributes
    ----------
    precision : {"float32", "int8"}
    n_rows : int
        Of ``X_check``.
    same : float
        Share of labels that are the same.
    largest_difference : float
        Between probabilities.
    score, score_before : float
        Accuracy of the exported model and of the classifier, or of a multilabel problem
        macro-F1, on the rows with a label in ``y_check``; NaN without.
    loss : float
        What was held against ``max_loss``: by how much the score fell or, without labels, by how
        much accuracy should fall if the classifier's own probabilities are right; multilabel
        without labels: the share of labels that are not the same.
    latency_ms : tuple of float
        Median and 95th percentile of one utterance with its context, over 60 calls with those
        of ``X_check``, on all cores.
    latency_ms_before : tuple of float
        Of the classifier.
    megabytes : float
        Size of the graph, in 10^6 bytes.
    megabytes_before : float
        Of the weights of the classifier and its encoder.
    """

    precision: str
    n_rows: int
    same: float
    largest_difference: float
    score: float
    score_before: float
    loss: float
    latency_ms: tuple[float, float]
    latency_ms_before: tuple[float, float]
    megabytes: float
    megabytes_before: float

    def __str__(self) -> str:
        lines = [
            f"{self.precision} graph, checked on {self.n_rows} utterances",
            f"labels: {self.same:.2%} the same; probabilities differ by "
            f"{self.largest_difference:.2g} at most",
        ]
        if not np.isnan(self.score):
            lines.append(f"score: {self.score:.4f}, before {self.score_before:.4f}")
        lines += [
            f"loss: {self.loss:.4f}",
            "one utterance: {:.2f} ms, 95th percentile {:.2f} ms; before {:.2f} and {:.2f}".format(
                *self.latency_ms, *self.latency_ms_before
            ),
            f"size: {self.megabytes:.1f} MB, before {self.megabytes_before:.1f} MB",
        ]
        return "\n".join(lines)


def compared(
    clf: Any, exported: OnnxDialogueClassifier, X: Any, y: Any, precision: str, n_bytes: int
) -> OnnxReport:
    """The exported model beside the classifier on these rows."""
    logits = clf._logits(X)
    with warnings.catch_warnings():  # both would warn of the same rows
        warnings.simplefilter("ignore")
        new_logits = exported._logits(X)
    fitted = clf.fitted_labels_
    before, after = fitted.probabilities(logits), fitted.probabilities(new_logits)
    labels, new_labels = fitted.labels(logits), fitted.labels(new_logits)
    changed = labels != new_labels
    score, score_before = (
        _score(y, predicted, clf.classes_) for predicted in (new_labels, labels)
    )
    if y is not None:
        loss = score_before - score
    elif clf.multilabel_:
        loss = float(changed.mean())
    else:
        chosen = before[np.arange(len(before)), after.argmax(axis=1)]
        loss = float((before.max(axis=1) - chosen).mean())
    slots = text_columns(clf, X)
    if len(slots) == 2 and not any(slots[1]):
        warnings.warn(
            "no utterance of X_check has a context, so that those are not checked; pass whole "
            "dialogues, with their dialogue_id",
            UserWarning,
            stacklevel=3,
        )
    rows = [list(texts) for texts in zip(*slots, strict=True)]
    tensors = [*clf._text_encoder.parameters(), *clf.net_.module_.without_encoder().parameters()]
    return OnnxReport(
        precision=precision,
        n_rows=len(before),
        same=float(1 - changed.mean()),
        largest_difference=float(np.abs(before - after).max()),
        score=score,
        score_before=score_before,
        loss=loss,
        latency_ms=_latency(exported._logits_from_texts, rows),
        latency_ms_before=_latency(partial(clf._logits_from_texts, keep=False), rows),
        megabytes=n_bytes / 1e6,
        megabytes_before=sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6,
    )


def text_columns(clf: Any, X: Any) -> list[NDArray[Any]]:
    """The texts of each row, and their contexts."""
    dialogues = check_dialogues(X, precomputed=False)
    return fitted_slots(dialogues, clf.context_turns, clf.fitted_labels_.n_texts)


def _score(y: Any, predicted: NDArray[Any], classes: NDArray[Any]) -> float:
    """Accuracy, or macro-F1 of a multilabel problem, on the rows with all their labels."""
    if y is None:
        return float("nan")
    truth = label_array(y)
    if truth.shape != predicted.shape:
        raise ValueError(f"y_check has the shape {truth.shape}, but it must be {predicted.shape}")
    known = wholly_known(y)
    if not known.any():
        raise ValueError("all of y_check is missing; leave it out, or pass labels")
    truth, predicted = truth[known], predicted[known]
    if predicted.ndim == 2:
        return float(f1_score(truth.astype(int), predicted, average="macro", zero_division=0))
    if strange := set(truth.tolist()) - set(classes.tolist()):
        raise ValueError(
            f"y_check has labels that are not classes: {sorted(strange, key=str)[:5]}"
        )
    return float((truth == predicted).mean())


def _latency(
    run: Callable[[list[str], NDArray[np.int64]], Any], rows: list[list[str]]
) -> tuple[float, float]:
    """Median and 95th percentile of one row, in milliseconds."""
    took = []
    for at in range(WARM_UP + TIMED):
        row = row_of(rows[at % len(rows)])
        start = time.perf_counter()
        run(*row)
        took.append(1e3 * (time.perf_counter() - start))
    median, late = np.percentile(took[WARM_UP:], [50, 95])
    return float(median), float(late)


def refuse_if_different(report: OnnxReport, max_loss: float) -> None:
    """Raise a ValueError where the exported model is not good enough."""
    if report.precision == "float32":
        if not report.largest_difference <= TOLERANCE:  # NaN neither
            raise ValueError(
                f"the graph's probabilities differ by up to {report.largest_difference:.2g} from "
                f"the classifier's, more than {TOLERANCE:g}; this encoder cannot be exported. One "
                "in half precision is to be loaded in float32 before fit, as graphs are; on a "
                "GPU, torch.set_float32_matmul_precision('highest') turns TF32 products off"
            )
    elif not report.loss <= max_loss:
        raise ValueError(
            f"int8 loses {report.loss:.4f} on the {report.n_rows} rows of X_check, more than "
            f"max_loss={max_loss:g}; check on more rows, allow more, or use precision='float32'"
        )
