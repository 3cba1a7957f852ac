"""Answers in milliseconds: a fitted classifier as an ONNX graph, and live dialogues."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .onnx import OnnxDialogueClassifier
from .stream import DialogueStream, MicroBatcher, Prediction

if TYPE_CHECKING:
    from .export import OnnxReport, export_onnx

__all__ = [
    "DialogueStream",
    "MicroBatcher",
    "OnnxDialogueClassifier",
    "OnnxReport",
    "Prediction",
    "export_onnx",
]


def __getattr__(name: str) -> Any:
    if name not in ("OnnxReport", "export_onnx"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".export", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
