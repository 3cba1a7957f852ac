"""Who is asked, how, and within what limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import Dialogues

from .billing import Limits, price_of
from .cache import AnswerCache, default_cache
from .client import Call
from .models import Model, OpenAIModel, Settings, models_of
from .questions import AnyPrompt, Examples, calls

__all__ = ["Panel", "models_from"]


@dataclass(frozen=True, eq=False)
class Panel:
    """Models and prompts, each of which is asked about every utterance.

    Attributes
    ----------
    models : list of Model
    limits : list of Limits
        Of each model.
    prompts : sequence of Prompt or StatePrompt
    examples : Examples
        Labelled utterances that prompts may show.
    classes : ndarray of shape (n_classes,)
    settings : Settings
    cache : str, Path or None
        Where answers are kept: in a file, in the user's cache folder ("auto"), or in ``memory``.
    memory : AnswerCache
        Also keeps the answers of callables where ``cache`` is "auto".
    verbose : bool
        Whether to show progress.
    mode : {"live", "batch"}, default="live"
    """

    models: list[Model]
    limits: list[Limits]
    prompts: Sequence[AnyPrompt]
    examples: Examples
    classes: NDArray[Any]
    settings: Settings
    cache: Any
    memory: AnswerCache
    verbose: bool
    mode: str = "live"

    @classmethod
    def from_params(
        cls,
        params: Mapping[str, Any],
        prompts: Sequence[AnyPrompt],
        examples: Examples,
        classes: NDArray[Any],
        memory: AnswerCache,
    ) -> Panel:
        """The panel that an annotator's parameters describe, by name."""
        models = models_from(params)
        per_call = params["utterances_per_call"]
        settings = Settings(
            params["scoring"],
            int(params["n_samples"]),
            float(params["sampling_temperature"]),
            dict(params["extra_body"] or {}),
            per_call if isinstance(per_call, str) else int(per_call),
        )
        limits = [_limits(params, model) for model in models]
        cache, verbose = params["cache"], bool(params["verbose"])
        return cls(
            models,
            limits,
            prompts,
            examples,
            classes,
            settings,
            cache,
            memory,
            verbose,
            params["mode"],
        )

    @property
    def members(self) -> list[tuple[str, str]]:
        """Model and prompt id of each member, prompts of a model side by side."""
        return [(model.name, prompt.id) for model in self.models for prompt in self.prompts]

    def calls(
        self,
        dialogues: Dialogues,
        rows: NDArray[np.int64],
        number: int,
        prompts: Sequence[int] | None = None,
    ) -> Iterator[Call]:
        """What the model of this number is asked about the rows, by some of the prompts or all."""
        return calls(
            dialogues,
            rows,
            self.prompts,
            self.examples,
            self.models[number],
            self.settings,
            number * len(self.prompts),
            prompts,
        )

    def answers(self, number: int) -> AbstractContextManager[AnswerCache]:
        """Where the answers of the model of this number are kept."""
        if self.cache is not None and self.cache != "auto":
            return closing(AnswerCache(self.cache))
        if self.cache == "auto" and isinstance(self.models[number], OpenAIModel):
            return closing(AnswerCache(default_cache()))
        return nullcontext(self.memory)


def models_from(params: Mapping[str, Any]) -> list[Model]:
    """The models that an annotator's parameters name."""
    endpoint = (params[name] for name in ("base_url", "api_key_env", "timeout", "max_retries"))
    return models_of(params["model"], *endpoint)


def _limits(params: Mapping[str, Any], model: Model) -> Limits:
    concurrency = params["concurrency"]
    return Limits(
        model.concurrency if concurrency == "auto" else int(concurrency),
        params["requests_per_minute"],
        params["tokens_per_minute"],
        params["budget"],
        params["token_budget"],
        price_of(model.name, params["prices"]),
    )
