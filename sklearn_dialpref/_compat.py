"""Every shim for other packages' versions, private modules and habits stands here."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sklearn.base import BaseEstimator

# Private in scikit-learn, but there under these names from 1.6 on.
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_parameter_constraints,
)

if TYPE_CHECKING:
    from types import FrameType

    import torch

__all__ = [
    "HasMethods",
    "Interval",
    "ShowsFitted",
    "StrOptions",
    "fast_bfloat16",
    "in_worker",
    "plain_attention",
    "quiet_transformers",
    "validate_parameter_constraints",
    "within_search",
]


class ShowsFitted:
    """Adds to scikit-learn's HTML representation of a fitted estimator what `_fitted_html` makes.

    From 1.9 on scikit-learn asks for it, in pipelines and searches too. In earlier versions it
    comes after the diagram of the estimator itself.
    """

    def _fitted_html(self) -> str:
        """HTML for a fitted estimator; empty for others."""
        raise NotImplementedError

    def _get_fitted_attr_html(self, doc_link: str = "") -> Any:
        usual = BaseEstimator._get_fitted_attr_html(self, doc_link)
        table = BaseEstimator._repr_html_inner(usual) if len(usual) else ""
        return _Html(self._fitted_html() + table)

    def _repr_html_inner(self) -> str:
        return self._with_fitted_html(BaseEstimator._repr_html_inner(self))

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = BaseEstimator._repr_mimebundle_(self, **kwargs)
        if "text/html" in bundle:
            bundle["text/html"] = self._with_fitted_html(bundle["text/html"])
        return bundle

    def _with_fitted_html(self, page: str) -> str:
        fitted = self._fitted_html()
        return page if fitted in page else page + fitted


class _Html:
    """What scikit-learn asks of the tables in its diagrams."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __len__(self) -> int:
        return len(self.text)

    def _repr_html_inner(self) -> str:
        return self.text


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 numbers, and does not only convert them."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    is_supported = getattr(
        torch.cpu, "_is_avx512_bf16_supported", None
    )  # private, but all there is
    return device.type == "cpu" and is_supported is not None and is_supported()


class _Attention:
    """How many blocks are without cuDNN's attention now, and whether it was on before them."""

    lock = threading.Lock()
    blocks = 0
    was_on = True


@contextmanager
def plain_attention(device: torch.device) -> Iterator[None]:
    """On a GPU, attention by torch's own kernels and not by cuDNN's.

    cuDNN compiles a plan for each new shape, and batches of texts have ever new ones: training
    took four times as long on an H200 (torch 2.11). Torch's switch is one for all threads, so
    the last block to end puts it back.
    """
    import torch

    if device.type != "cuda":
        yield
        return
    switch = torch.backends.cuda.enable_cudnn_sdp
    with _Attention.lock:
        if not _Attention.blocks:
            _Attention.was_on = torch.backends.cuda.cudnn_sdp_enabled()
        _Attention.blocks += 1
        switch(False)
    try:
        yield
    finally:
        with _Attention.lock:
            _Attention.blocks -= 1
            if not _Attention.blocks:
                switch(_Attention.was_on)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars, notes and warnings from the user; leave its state be."""
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def within_search() -> bool:
    """Whether this is called by a fold of a search or cross-validation of scikit-learn."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        # it offers nothing else to tell a fit of a fold from one of a user
        if frame.f_globals.get("__name__") == "sklearn.model_selection._validation":
            return True
        frame = frame.f_back
    return False


def in_worker() -> bool:
    """Whether this is called in a worker of joblib."""
    from joblib.parallel import get_active_backend

    return bool(get_active_backend()[0].nesting_level)
