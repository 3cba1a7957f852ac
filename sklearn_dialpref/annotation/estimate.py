"""What a pass would cost, before anything is asked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.utils import Bunch

from sklearn_dialpref._dialogues.validation import Dialogues

from .billing import count_tokens
from .panel import Panel

__all__ = ["estimate"]

MOST_COUNTED = 50_000  # questions that are read; the estimate scales up from there


def estimate(panel: Panel, dialogues: Dialogues, token_ratio: Mapping[str, float]) -> Bunch:
    """Calls, tokens and cost of labelling dialogues.

    Tokens are corrected by what known answers to these questions were billed, or else those of
    the last pass.

    Parameters
    ----------
    panel : Panel
    dialogues : Dialogues
    token_ratio : mapping of float
        By model, tokens that the last pass was billed for each token counted.

    Returns
    -------
    Bunch
        As :meth:`LLMAnnotator.estimate_cost` returns it.
    """
    rows, n_prompts = np.arange(len(dialogues)), len(panel.prompts)
    if len(rows) * n_prompts > MOST_COUNTED:
        most = max(1, MOST_COUNTED // n_prompts)
        rows = np.sort(np.random.RandomState(0).permutation(rows)[:most])
    scale = len(dialogues) / len(rows)
    total = Bunch(calls=0, cached=0, tokens_in=0, tokens_out=0, cost=0.0)
    for number, model in enumerate(panel.models):
        counted = {
            question.key: count_tokens(question.messages)
            for question in panel.questions(dialogues, rows, number)
        }
        with panel.answers(number) as cache:
            known = cache.get_many(list(counted))
        billed = {key: answer["tokens_in"] for key, answer in known.items()}
        billed = {key: tokens for key, tokens in billed.items() if tokens}
        ratio = token_ratio.get(model.name, 1.0)
        if billed:
            ratio = sum(billed.values()) / sum(counted[key] for key in billed)
        new = [count for key, count in counted.items() if key not in known]
        way = panel.settings.way
        answers = way.n_answers(panel.settings.n_samples)
        tokens_in = scale * ratio * sum(new)
        tokens_out = scale * answers * way.typical_tokens * len(new)
        total.calls += round(scale * len(new))
        total.cached += round(scale * (len(rows) * n_prompts - len(new)))
        total.tokens_in += round(tokens_in)
        total.tokens_out += round(tokens_out)
        total.cost += panel.limits[number].cost(tokens_in, tokens_out)
    return total
