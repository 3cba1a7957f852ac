"""Names of classes and the codes that stand for them in prompts, if models can be shown them."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable
from typing import Any

import numpy as np

from sklearn_dialpref._dialogues.texts import check_encodable

__all__ = ["check_classes", "check_writable", "default_codes", "plain"]


def plain(label: Any) -> Any:
    """A label as Python's own type."""
    return label.item() if isinstance(label, np.generic) else label


def check_writable(name: str, text: Any) -> None:
    """Raise a ValueError unless it is a text that UTF-8 can write, as requests need it."""
    if not isinstance(text, str):
        raise ValueError(f"{name} must be str, got {type(text).__name__}")
    check_encodable(text, name)


def check_classes(classes: Any, fewest: int = 2) -> tuple[Any, ...]:
    """The labels as Python's own types, if a prompt can show and store them."""
    if isinstance(classes, str | bytes) or not isinstance(classes, Iterable):
        raise ValueError(f"classes must be a sequence of labels, got {classes!r}")
    labels = tuple(plain(label) for label in classes)
    for label in labels:
        if isinstance(label, str):
            check_writable("classes", label)
        elif not isinstance(label, int | float) or label != label or abs(label) == math.inf:
            raise ValueError(f"classes must be str or finite numbers, got {label!r}")
    if len(labels) < fewest or len(set(labels)) != len(labels):
        number = "two distinct labels" if fewest == 2 else "one label, all distinct"
        raise ValueError(f"classes must be at least {number}, got {labels!r}")
    return labels


def default_codes(n_classes: int) -> tuple[str, ...]:
    """A, B, C, …, then a, b, c, …; numbers beyond 52 classes, which are not single tokens."""
    letters = string.ascii_uppercase + string.ascii_lowercase
    if n_classes <= len(letters):
        return tuple(letters[:n_classes])
    return tuple(str(number) for number in range(1, n_classes + 1))
