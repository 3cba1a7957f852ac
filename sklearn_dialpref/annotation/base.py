"""What annotators share: passes over a panel, their record, and an estimate of the cost."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from sklearn_dialpref._compat import Interval, StrOptions, validate_parameter_constraints
from sklearn_dialpref._dialogues.validation import Dialogues, check_dialogues

from .answers import BaseAnswers
from .bank import PromptBank
from .cache import AnswerCache
from .card import card_markdown
from .checks import check_asked, check_settings
from .estimate import estimate
from .labelling import Done, Record, label_rows
from .models import Model
from .panel import Panel, models_from
from .questions import MOST_TURNS

__all__ = ["BaseAnnotator"]


class BaseAnnotator(BaseEstimator):
    """An estimator that asks language models.

    Those who inherit take the parameters that are named here, and make a panel of them.
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "model": [str, callable, list],
        "prompts": [PromptBank, None],
        "task": [str],
        "utterances_per_call": [
            Interval(Integral, 1, 2 * MOST_TURNS, closed="both"),
            StrOptions({"dialogue"}),
        ],
        "mode": [StrOptions({"live", "batch"})],
        "base_url": [str, None],
        "api_key_env": [str],
        "extra_body": [Mapping, None],
        "cache": [str, Path, None],
        "concurrency": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "timeout": [Interval(Real, 0, None, closed="neither")],
        "max_retries": [Interval(Integral, 0, None, closed="left")],
        "requests_per_minute": [Interval(Real, 0, None, closed="neither"), None],
        "tokens_per_minute": [Interval(Real, 0, None, closed="neither"), None],
        "prices": [tuple, list, Mapping, None],
        "budget": [Interval(Real, 0, None, closed="left"), None],
        "token_budget": [Interval(Integral, 0, None, closed="left"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def _panel(self) -> Panel:
        """Who is asked, how, and within what limits, by the parameters as they are now."""
        raise NotImplementedError

    def _start(self) -> list[Model]:
        """The models, if all parameters are right; forgets what an earlier fit has asked."""
        params = self.get_params(deep=False)
        validate_parameter_constraints(
            self._parameter_constraints, params, caller_name=type(self).__name__
        )
        models = models_from(params)
        check_settings(params, models)
        self._memory: AnswerCache | None = None
        self._token_ratio: dict[str, float] = {}  # billed for each token counted, by model
        return models

    def _answer_memory(self) -> AnswerCache:
        """Where answers are kept that go into no file."""
        if self._memory is None:
            self._memory = AnswerCache(":memory:")
        return self._memory

    def _pass(
        self,
        dialogues: Dialogues,
        rows: NDArray[np.int64],
        answers: BaseAnswers,
        done: Done | None = None,
    ) -> None:
        """Let the panel answer about the rows, see :func:`label_rows`."""
        self._date = datetime.now(UTC).isoformat(timespec="seconds")
        record = Record()
        try:
            label_rows(self._panel(), dialogues, rows, record, answers, done)
        finally:  # what was used counts, also where the pass is cut short
            self.usage_, self.failures_ = asdict(record.usage), record.failures
            self._token_ratio |= record.token_ratio
            if record.lost:
                warnings.warn(
                    f"{record.lost} answers of the cache were damaged and are lost; they are "
                    "asked for again",
                    UserWarning,
                    stacklevel=4,
                )

    def estimate_cost(self, X: Any, *, asked: Any = None) -> Bunch:
        """What labelling would take, without asking anything.

        Tokens are counted without a tokenizer, and corrected by what known answers were billed.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            As for ``predict``.
        asked : array-like of bool, shape (n,), default=None
            Utterances that are asked about; the others are only shown as context. None: all.

        Returns
        -------
        Bunch
            ``calls`` to make, ``cached`` answers, ``tokens_in``, ``tokens_out``, ``cost``. As if
            no call were repeated, and all members were asked about all of them.
        """
        check_is_fitted(self, "prompts_")
        dialogues = self._dialogues(X)
        wanted = self._asked(dialogues) & check_asked(asked, len(dialogues))
        return estimate(self._panel(), dialogues, wanted, self._token_ratio)

    def _dialogues(self, X: Any) -> Dialogues:
        """The utterances, if they can be asked about."""
        return check_dialogues(X, precomputed=False)

    def _asked(self, dialogues: Dialogues) -> NDArray[np.bool_]:
        """Which utterances are asked about."""
        return np.ones(len(dialogues), dtype=bool)

    def card(self, format: str = "markdown") -> str:
        """What was asked, of which models, at what cost, and how far the answers agree.

        Parameters
        ----------
        format : {"markdown", "json"}, default="markdown"
            JSON also has the whole prompts.

        Returns
        -------
        str

        Raises
        ------
        NotFittedError
            If nothing was labelled yet.
        ValueError
            If the format is another.
        """
        check_is_fitted(self, "votes_")
        if format not in ("markdown", "json"):
            raise ValueError(f"format must be 'markdown' or 'json', got {format!r}")
        content = self._card_content()
        if format == "json":
            return json.dumps(content, indent=1, ensure_ascii=False)
        return card_markdown(content)

    def _card_content(self) -> dict[str, Any]:
        """What a card says, as JSON can hold it."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {**state, "_memory": None} if "_memory" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.target_tags.required = False
        return tags
