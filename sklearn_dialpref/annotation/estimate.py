"""What a pass would cost, before anything is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sklearn_dialpref._dialogues.validation import Dialogues

from .billing import count_tokens
from .client import Call
from .panel import Panel

__all__ = ["estimate"]

MOST_COUNTED = 50_000  # questions that are read; the estimate scales up from there


def estimate(
    panel: Panel,
    dialogues: Dialogues,
    wanted: NDArray[np.bool_],
    token_ratio: Mapping[str, float],
) -> Bunch:
    """Calls, tokens and cost of labelling dialogues.

    Tokens are corrected by what known answers to these questions were billed, or else those of
    the last pass.

    Parameters
    ----------
    panel : Panel
    dialogues : Dialogues
    wanted : ndarray of bool, shape (n,)
        Rows that are asked about.
    token_ratio : mapping of float
        By model, tokens that the last pass was billed for each token counted.

    Returns
    -------
    Bunch
        As :meth:`LLMAnnotator.estimate_cost` returns it.
    """
    n_prompts = len(panel.prompts)
    rows = _some_dialogues(dialogues, max(1, MOST_COUNTED // n_prompts))
    scale = len(dialogues) / len(rows)
    rows = rows[wanted[rows]]
    total = Bunch(calls=0, cached=0, tokens_in=0, tokens_out=0, cost=0.0)
    for number, model in enumerate(panel.models):
        calls = list(panel.calls(dialogues, rows, number))
        keys = {question.key for call in calls for question in call.questions}
        with panel.answers(number) as cache:
            known = cache.get_many(list(keys))
        ratio = _billed_ratio(calls, known) or token_ratio.get(model.name, 1.0)
        new = [
            call.about(questions)
            for call in calls
            if (questions := [one for one in call.questions if one.key not in known])
        ]
        way = panel.settings.way
        answers = way.n_answers(panel.settings.n_samples)
        tokens_in = scale * ratio * sum(count_tokens(call.messages) for call in new)
        tokens_out = scale * answers * sum(way.usual_tokens(call.asked) for call in new)
        asked = sum(len(call.questions) for call in new)
        total.calls += round(scale * len(new))
        total.cached += round(scale * (len(rows) * n_prompts - asked))
        total.tokens_in += round(tokens_in)
        total.tokens_out += round(tokens_out)
        total.cost += panel.limits[number].cost(tokens_in, tokens_out)
    return total


def _some_dialogues(dialogues: Dialogues, most: int) -> NDArray[np.int64]:
    """The rows of as many random dialogues as have so many rows; all, if there are no more."""
    if len(dialogues) <= most:
        return np.arange(len(dialogues))
    order = np.random.RandomState(0).permutation(dialogues.group.max() + 1)
    sizes = np.bincount(dialogues.group)[order]
    chosen = order[: max(1, int(np.searchsorted(sizes.cumsum(), most, side="right")))]
    return np.flatnonzero(np.isin(dialogues.group, chosen))


def _billed_ratio(calls: Sequence[Call], known: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Tokens billed for each token counted, in the answers that are known; None without any."""
    counted, billed = 0.0, 0
    for call in calls:
        tokens = [known[q.key]["tokens_in"] for q in call.questions if q.key in known]
        if any(tokens):
            counted += count_tokens(call.messages) * len(tokens) / len(call.questions)
            billed += sum(tokens)
    return billed / counted if counted else None
