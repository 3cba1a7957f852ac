"""Saved models in the processes of a cluster: what they predict, and one load per process."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import narwhals as nw
from numpy.typing import NDArray

from sklearn_dialpref._labels.fitted import FittedLabels
from sklearn_dialpref._persistence.folder import MANIFEST, is_regular, read_folder, read_json
from sklearn_dialpref.serving.onnx import KIND as ONNX
from sklearn_dialpref.serving.onnx import SERVED, OnnxDialogueClassifier

OUTPUTS = ("label", "proba")
MOST_MODELS = 4  # that a process keeps, since a cluster's may live for weeks
DTYPES: dict[type, Any] = {str: nw.String, int: nw.Int64, float: nw.Float64, bool: nw.Boolean}
_LOADING = threading.Lock()


@dataclass(frozen=True, eq=False)
class Described:
    """What there is to know of a saved model without loading it.

    Attributes
    ----------
    labels : FittedLabels
    context_turns : int
        How many utterances before each one are its context.
    """

    labels: FittedLabels
    context_turns: int

    def columns(self, output: str) -> dict[str, Any]:
        """The columns that its predictions are, and their narwhals types."""
        names = self.labels.classes.tolist()
        if output == "proba":
            return {f"proba_{name}": nw.Float64 for name in names}
        if self.labels.multilabel:
            return {f"label_{name}": nw.Int64 for name in names}
        return {"label": DTYPES[type(names[0])]}  # labels are of one type


def describe(path: str) -> Described:
    """Read what a saved or exported model predicts; neither torch nor its weights are loaded."""
    if _is_exported(path):
        return read_folder(path, ONNX, partial(_description, file=SERVED))
    from sklearn_dialpref._persistence.saving import KIND, STATE

    return read_folder(path, KIND, partial(_description, file=STATE))


def _description(folder: Path, file: str) -> Described:
    state = read_json(folder / file)
    try:
        labels = FittedLabels.from_json(state, folder)
        turns = state["context_turns"] if file == SERVED else state["parameters"]["context_turns"]
        return Described(labels, int(turns))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{folder} is damaged: {file} does not tell what the model predicts ({error})"
        ) from error


@dataclass(frozen=True, eq=False)
class Loaded(Described):
    """A model in memory, for all threads of a process."""

    model: Any
    turn: AbstractContextManager[Any]

    def predictions(self, X: Any, output: str) -> Sequence[NDArray[Any]]:
        """The values of :meth:`Described.columns` for these utterances."""
        with self.turn:
            # so that nothing of a block is kept in the worker
            (predicted,) = self.model.predict_batches([X], output=output)
        return list(predicted.T) if predicted.ndim == 2 else [predicted]


def load(path: str) -> Loaded:
    """The model in this folder, which is loaded once per process and version of the folder."""
    real = os.path.realpath(path)
    with _LOADING:
        return _load(real, _version(real))


@lru_cache(MOST_MODELS)
def _load(path: str, version: bytes) -> Loaded:
    model: Any
    turn: AbstractContextManager[Any] = nullcontext()
    if _is_exported(path):
        model = OnnxDialogueClassifier.load(path, threads=_allotted_threads())
    else:
        from sklearn_dialpref._classifier import DialoguePreferenceClassifier

        model = DialoguePreferenceClassifier.load(path)
        turn = threading.Lock()  # its encoder keeps the states of a pass in itself
    return Loaded(model.fitted_labels_, model.context_turns, model, turn)


def _version(folder: str) -> bytes:
    """The manifest, which has the checksums of all files; what is wrong with it, loading says."""
    file = Path(folder) / MANIFEST
    return file.read_bytes() if is_regular(file) else b""


def _is_exported(path: str) -> bool:
    """Whether :func:`export_onnx` wrote this; if no one did, loading a classifier says so."""
    file = Path(path) / MANIFEST
    manifest = read_json(file) if is_regular(file) else None
    return isinstance(manifest, dict) and manifest.get("kind") == ONNX


def _allotted_threads() -> int | None:
    """How many threads Dask, Ray and Spark allow a worker: as for torch, which reads it itself."""
    number = os.environ.get("OMP_NUM_THREADS", "")
    return int(number) if number.isdecimal() and int(number) else None
