"""What the settings, labels and prompts of an annotator must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._compat import validate_parameter_constraints
from sklearn_dialpref._dialogues.validation import is_missing
from sklearn_dialpref._labels.targets import check_targets

from .bank import PromptBank
from .models import CallableModel

if TYPE_CHECKING:
    from .annotator import LLMAnnotator

__all__ = ["LEARNABLE", "check_labels", "check_members", "check_prompts", "check_settings"]

LEARNABLE = ("temperature", "bias", "weights")


def check_settings(annotator: LLMAnnotator) -> None:
    """Raise a ValueError where parameters are wrong, alone or together."""
    validate_parameter_constraints(
        annotator._parameter_constraints,
        annotator.get_params(deep=False),
        caller_name=type(annotator).__name__,
    )
    if unknown := set(annotator.learn) - set(LEARNABLE):
        raise ValueError(f"learn holds {sorted(unknown)}; it may hold {list(LEARNABLE)}")
    _check_prices(annotator)
    address = urlsplit(annotator.base_url or "")
    if "@" in address.netloc or address.query:
        raise ValueError(
            "base_url holds a password or a query, which would show in cards and logs; put the "
            "key into an environment variable and name that as api_key_env"
        )
    if annotator.prompts is not None and annotator.n_examples:
        raise ValueError(
            "n_examples is for the default prompts; the prompts given say themselves how "
            "many examples they show (Prompt(..., n_examples=...))"
        )


def _check_prices(annotator: LLMAnnotator) -> None:
    given = annotator.prices
    if annotator.budget is not None and given is None:
        raise ValueError(
            f"budget={annotator.budget} needs prices=(in, out) of a million tokens; or set "
            "token_budget"
        )
    if isinstance(given, Mapping):
        names = {model.name for model in annotator._models()}
        if unpriced := names - set(given):
            raise ValueError(f"prices has no entry for {sorted(unpriced)}, only {sorted(given)}")
    for price in given.values() if isinstance(given, Mapping) else [given]:
        if price is None:
            continue
        if len(price) != 2 or any(p < 0 for p in price):
            raise ValueError(
                f"prices must be (in, out) of a million tokens, two numbers of at least 0, got "
                f"{price!r}"
            )


def check_labels(
    annotator: LLMAnnotator, y_human: Any, n_rows: int
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Position of each row's label among the classes, -1 where missing; and the classes."""
    if y_human is not None and not is_missing(y_human).all():
        targets = check_targets(y_human, None, n_rows, annotator.classes)
        if targets.multilabel:
            raise ValueError(
                "y_human is 2-D (multilabel), but an annotator gives one label per utterance; "
                "use one annotator for each label, with classes=[0, 1]"
            )
        return targets.human, targets.classes
    examples = annotator.n_examples or sum(p.n_examples for p in annotator.prompts or ())
    if examples:
        raise ValueError(
            "the prompts show labelled examples (n_examples), but there are no human labels to "
            "take them from: pass y_human, or set n_examples=0"
        )
    if annotator.classes is None:
        raise ValueError("without human labels the classes must be named: classes=[...]")
    labels = list(annotator.classes)
    names = np.unique(np.asarray(labels))
    if set(names.tolist()) != set(labels) or len(names) < 2 or len(names) != len(labels):
        raise ValueError(
            f"classes must be at least two distinct labels of one type, got {labels!r}"
        )
    return np.full(n_rows, -1), names


def check_prompts(annotator: LLMAnnotator, seed: int) -> PromptBank:
    """The bank: the one given, which must be for the classes, or the default one."""
    classes = annotator.classes_.tolist()
    if annotator.prompts is None:
        return PromptBank.default(
            annotator.task,
            classes,
            annotator.definitions,
            n_examples=annotator.n_examples,
            random_state=seed,
        )
    if set(annotator.prompts.classes) != set(classes):
        raise ValueError(
            f"the prompts ask for {annotator.prompts.classes} but the classes are {classes}; "
            "build the bank for these"
        )
    return annotator.prompts


def check_members(annotator: LLMAnnotator) -> list[tuple[str, str]]:
    """Model and prompt id of each member of the ensemble."""
    models = annotator._models()
    if len({model.name for model in models}) != len(models) or not models:
        raise ValueError(
            f"model must name at least one model, each once, got {annotator.model!r}; give "
            "functions different attributes `name`"
        )
    on_disk = annotator.cache not in (None, "auto")
    for model in models:
        if on_disk and isinstance(model, CallableModel) and model.nameless:
            raise ValueError(
                f"the cache keeps a function's answers by its name, but {model.name!r} may name "
                "another one tomorrow: set its attribute `name`, and change that when what it "
                "does changes"
            )
    long = [code for p in annotator.prompts_ for code in p.codes or () if len(code) > 1]
    if annotator.scoring == "logprobs" and long:
        raise ValueError(
            f"scoring='logprobs' reads one token, but there are codes such as {long[0]!r}; "
            "use codes of one character, or scoring='schema' or 'samples'"
        )
    return [(model.name, prompt.id) for model in models for prompt in annotator.prompts_]
