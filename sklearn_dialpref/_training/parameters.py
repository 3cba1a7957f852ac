"""Validation of the estimator's parameters, apart from the data."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from sklearn_dialpref._compat import StrOptions, validate_parameter_constraints

# beyond these, gradients of weighted losses leave what a float32 holds
LEAST_CLASS_WEIGHT, LARGEST_CLASS_WEIGHT = 1e-10, 1e10


def check_parameters(estimator: Any, constraints: Mapping[str, Any]) -> None:
    """Raise a ValueError or TypeError for a parameter that is not as described."""
    from sklearn_dialpref.losses import LOSSES

    losses = {"loss": [StrOptions(set(LOSSES)), callable]}
    validate_parameter_constraints(
        {**constraints, **losses},
        estimator.get_params(deep=False),
        caller_name=type(estimator).__name__,
    )
    encoder = estimator.encoder
    is_model = hasattr(encoder, "state_dict") and hasattr(encoder, "encode")
    if not (is_model or isinstance(encoder, str | Path)):
        raise TypeError(
            "encoder must be the name or folder of a sentence-transformers model, a "
            f"SentenceTransformer or 'precomputed', got {encoder!r}"
        )
    if isinstance(estimator.class_weight, dict):
        _check_class_weight(estimator.class_weight)
    if estimator.checkpoint_dir is not None:
        _check_resumable(estimator)


def _check_class_weight(class_weight: Mapping[Any, Any]) -> None:
    for name, weight in class_weight.items():
        if isinstance(weight, bool) or not isinstance(weight, Real):
            raise TypeError(
                f"class_weight gives the class {name!r} {weight!r} of type "
                f"{type(weight).__name__}; pass a number"
            )
        if weight != 0 and not LEAST_CLASS_WEIGHT <= float(weight) <= LARGEST_CLASS_WEIGHT:
            raise ValueError(
                f"class_weight gives the class {name!r} the weight {weight!r}, but weights are 0 "
                f"or from {LEAST_CLASS_WEIGHT:g} to {LARGEST_CLASS_WEIGHT:g}; only their ratios "
                "count, so scale them"
            )


def _check_resumable(estimator: Any) -> None:
    if estimator.callbacks:
        names = ", ".join(type(callback).__name__ for callback in estimator.callbacks)
        raise ValueError(
            f"checkpoint_dir cannot keep the state of callbacks ({names}), so that a killed fit "
            "would not go on as it was; use one of checkpoint_dir and callbacks"
        )
    if estimator.accelerator is not None:
        raise ValueError(
            "checkpoint_dir is for a fit in one process, but accelerator is set; use one of them"
        )
