"""Answers in milliseconds: a fitted classifier as an ONNX graph, which needs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .onnx import OnnxDialogueClassifier

if TYPE_CHECKING:
    from .export import OnnxReport, export_onnx

__all__ = ["OnnxDialogueClassifier", "OnnxReport", "export_onnx"]


def __getattr__(name: str) -> Any:
    if name not in ("OnnxReport", "export_onnx"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".export", __name__), name)
