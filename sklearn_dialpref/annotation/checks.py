"""What the settings, labels and prompts of an annotator must be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import indicator_table, is_missing, label_array
from sklearn_dialpref._labels.scores import column_names, column_places
from sklearn_dialpref._labels.targets import check_targets, class_names

from .bank import PromptBank
from .class_names import check_classes, check_writable
from .models import CallableModel, Model
from .questions import AnyPrompt
from .scoring import SCORINGS

__all__ = [
    "LEARNABLE",
    "check_asked",
    "check_labels",
    "check_members",
    "check_prompts",
    "check_settings",
    "labels_to_score",
]

LEARNABLE = ("temperature", "bias", "weights")
NUMBERS = (int, float, np.integer, np.floating)
MOST_PRICE = 1e15  # of a million tokens, in any currency


def check_settings(params: Mapping[str, Any], models: Sequence[Model]) -> None:
    """Raise a ValueError where an annotator's parameters are wrong, alone or together."""
    if "learn" in params:  # of labels, not of states
        _check_learning(params)
    _check_prices(params["prices"], params["budget"], {model.name for model in models})
    address = urlsplit(params["base_url"] or "")
    if "@" in address.netloc or address.query:
        raise ValueError(
            "base_url holds a password or a query, which would show in cards and logs; put the "
            "key into an environment variable and name that as api_key_env"
        )
    _check_mode(params, models)
    _check_texts(params, models)


def _check_learning(params: Mapping[str, Any]) -> None:
    if unknown := [part for part in params["learn"] if part not in LEARNABLE]:
        raise ValueError(f"learn holds {unknown}; it may hold {list(LEARNABLE)}")
    if params["prompts"] is not None and params["n_examples"]:
        raise ValueError(
            "n_examples is for the default prompts; the prompts given say themselves how "
            "many examples they show (Prompt(..., n_examples=...))"
        )


def _check_mode(params: Mapping[str, Any], models: Sequence[Model]) -> None:
    if params["mode"] != "batch":
        return
    if functions := [model.name for model in models if isinstance(model, CallableModel)]:
        raise ValueError(
            f"mode='batch' needs models of an endpoint, by name, but {functions} are functions; "
            "use mode='live'"
        )
    if params["cache"] is None:
        raise ValueError(
            "mode='batch' keeps the record of its batches in the cache's file, so that a killed "
            "process loses nothing, but cache is None; set it to a path or 'auto'"
        )


def _check_texts(params: Mapping[str, Any], models: Sequence[Model]) -> None:
    """What goes into requests must be such that a request can hold it."""
    for model in models:
        check_writable("the name of a model", model.name)
    try:
        body = json.dumps(dict(params["extra_body"] or {}), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"extra_body must be what JSON can hold: {error}") from None
    check_writable("extra_body", body)


def _check_prices(given: Any, budget: float | None, names: set[str]) -> None:
    if budget is not None and given is None:
        raise ValueError(
            f"budget={budget} needs prices=(in, out) of a million tokens; or set token_budget"
        )
    if isinstance(given, Mapping) and (unpriced := names - set(given)):
        raise ValueError(f"prices has no entry for {sorted(unpriced)}, only {list(given)}")
    for price in given.values() if isinstance(given, Mapping) else [given]:
        if price is None:
            continue
        pair = price if isinstance(price, tuple | list | np.ndarray) else ()
        if len(pair) not in (2, 3) or not all(
            isinstance(p, NUMBERS) and 0 <= p <= MOST_PRICE for p in pair
        ):
            raise ValueError(
                f"prices must be (in, out) or (in, out, cached) of a million tokens, numbers of "
                f"at least 0, got {price!r}"
            )


def check_labels(
    y_human: Any, n_rows: int, classes: Any, n_examples: int, multilabel: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Position of each row's label among the classes, -1 where missing; and the classes.

    Where ``multilabel``: 0, 1 or NaN for each row and class. ``n_examples`` is how many labelled
    utterances the prompts show.
    """
    if y_human is not None and not is_missing(y_human).all():
        if multilabel and np.shape(label_array(y_human, "y_human"))[1:] == (1,):
            raise ValueError(
                "y_human has one column; for one label leave multilabel=False and give the two "
                "classes, such as classes=[0, 1]"
            )
        targets = check_targets(y_human, None, n_rows, classes)
        if targets.multilabel != multilabel:
            raise ValueError(
                "y_human is 2-D, 0 or 1 for each of several labels; set multilabel=True"
                if targets.multilabel
                else "multilabel=True takes a 2-D y_human, 0 or 1 for each label, got 1-D labels"
            )
        return targets.human, targets.classes
    if n_examples:
        raise ValueError(
            "the prompts show labelled examples (n_examples), but there are no human labels to "
            "take them from: pass y_human, or set n_examples=0"
        )
    if classes is None:
        raise ValueError("without human labels the classes must be named: classes=[...]")
    if multilabel:
        names = class_names(check_classes(classes, fewest=1))
        return np.full((n_rows, len(names)), np.nan), names
    labels = list(check_classes(classes))
    names = np.unique(np.asarray(labels))
    if set(names.tolist()) != set(labels) or len(names) < 2 or len(names) != len(labels):
        raise ValueError(
            f"classes must be at least two distinct labels of one type, got {labels!r}"
        )
    return np.full(n_rows, -1), names


def check_asked(asked: Any, n_rows: int) -> NDArray[np.bool_]:
    """Which utterances are asked about; all, if it is None."""
    if asked is None:
        return np.ones(n_rows, dtype=bool)
    mask = label_array(asked, "asked")
    if mask.shape != (n_rows,) or mask.dtype != bool:
        raise ValueError(
            f"asked must hold True or False for each of the {n_rows} rows of X, got an array of "
            f"{mask.dtype} of shape {mask.shape}; pass a boolean mask"
        )
    return mask


def labels_to_score(y: Any, n_rows: int, classes: NDArray[Any], multilabel: bool) -> NDArray[Any]:
    """The labels that predictions are compared with; where ``multilabel`` 0, 1 or NaN."""
    labels = label_array(y)
    if len(labels) != n_rows:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {n_rows} rows but "
            f"y has {len(labels)}"
        )
    shape = (n_rows, len(classes)) if multilabel else (n_rows,)
    if labels.shape != shape:
        raise ValueError(f"y must be of shape {shape}, got {labels.shape}")
    if not multilabel:
        return labels
    table = indicator_table(labels, "y")
    named = column_names(y)
    if named is None:
        return table
    advice = "name the label columns after the classes, one each"
    return table[:, column_places(named, classes, "y", advice)]


def check_prompts(
    prompts: PromptBank, classes: NDArray[Any], multilabel: bool, stretches: bool
) -> None:
    """Raise a ValueError unless the bank that was given asks for these classes in this way."""
    if set(prompts.classes) != set(classes.tolist()):
        raise ValueError(
            f"the prompts ask for {prompts.classes} but the classes are {classes.tolist()}; "
            "build the bank for these"
        )
    if prompts.multilabel != multilabel:
        raise ValueError(
            f"multilabel is {multilabel} but that of the prompts is {prompts.multilabel}; build "
            "the bank for it"
        )
    if prompts.for_stretches and not stretches:
        raise ValueError(
            "the prompts show turns, several utterances at once, but utterances_per_call is 1; "
            "set it to a higher number or 'dialogue'"
        )
    if stretches and not prompts.for_stretches:
        raise ValueError(
            "utterances_per_call is not 1, but the prompts show one utterance; give prompts with "
            "the placeholders turns and numbers, or set it to 1"
        )


def check_members(
    models: Sequence[Model],
    prompts: Sequence[AnyPrompt],
    scoring: str,
    *,
    given: Any,
    on_disk: bool,
) -> None:
    """Raise a ValueError unless the members can be told apart and answer as is asked.

    ``given`` is the parameter that the models came from; ``on_disk`` says whether answers are
    kept in a file.
    """
    if len({model.name for model in models}) != len(models) or not models:
        raise ValueError(
            f"model must name at least one model, each once, got {given!r}; give "
            "functions different attributes `name`"
        )
    for model in models:
        if on_disk and isinstance(model, CallableModel) and model.nameless:
            raise ValueError(
                f"the cache keeps a function's answers by its name, but {model.name!r} may name "
                "another one tomorrow: set its attribute `name`, and change that when what it "
                "does changes"
            )
    long = [code for p in prompts for code in p.form.codes if len(code) > 1]
    if long and SCORINGS[scoring].needs_logprobs:
        raise ValueError(
            f"scoring={scoring!r} reads one token, but there are codes such as {long[0]!r}; "
            "use codes of one character, or scoring='schema' or 'samples'"
        )
