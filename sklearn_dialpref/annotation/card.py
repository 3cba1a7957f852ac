"""The record of an annotation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ensemble import Combination
from .panel import Panel

__all__ = ["card_content", "card_markdown"]


def card_content(
    panel: Panel,
    *,
    date: str,
    base_url: str | None,
    scores: NDArray[np.float64],
    agreement: NDArray[np.float64],
    combination: Combination | list[Combination],
    lead: float | None,
    usage: dict[str, Any],
    failures: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What was asked, of whom, at what cost, and what came of it, as JSON can hold it.

    Parameters
    ----------
    panel : Panel
        That was asked.
    date : str
        Of its last pass.
    base_url : str or None
    scores : ndarray of shape (n, n_members, n_classes)
        Of that pass.
    agreement : ndarray of shape (n,)
        Of the members in it.
    combination : Combination or list of Combination
        A list has one for each of several labels.
    lead : float or None
        At which no further member was asked.
    usage : dict
        Of that pass.
    failures : sequence of mapping

    Returns
    -------
    dict
    """
    agreement = agreement[~np.isnan(agreement)]
    answered = ~np.isnan(scores[:, :, 0])
    return {
        "date": date,
        "models": [model.name for model in panel.models],
        "base_url": base_url,
        "classes": panel.classes.tolist(),
        "multilabel": panel.prompts.multilabel,
        "utterances_per_call": panel.settings.utterances_per_call,
        "lead": lead,
        "settings": panel.settings.to_dict(),
        "prompts": [{"id": prompt.id, **prompt.to_dict()} for prompt in panel.prompts],
        "utterances": len(answered),
        "without_answer": int((~answered.any(axis=1)).sum()),
        "agreement": float(agreement.mean()) if len(agreement) else None,
        **_learned(combination),
        "usage": usage,
        "failures": dict(Counter(failure["reason"] for failure in failures)),
    }


def _learned(combination: Combination | list[Combination]) -> dict[str, Any]:
    """Weights, temperature and bias; of several labels, a list of each."""
    if isinstance(combination, Combination):
        return {
            "weights": combination.weights.tolist(),
            "temperature": combination.temperature,
            "bias": combination.bias.tolist(),
        }
    return {
        "weights": [one.weights.tolist() for one in combination],
        "temperature": [one.temperature for one in combination],
        "bias": [float(one.bias[1] - one.bias[0]) for one in combination],
    }


def card_markdown(content: dict[str, Any]) -> str:
    """The content of a card as text.

    Parameters
    ----------
    content : dict
        As ``LLMAnnotator.card("json")`` has it.

    Returns
    -------
    str
    """
    usage, settings = content["usage"], content["settings"]
    agreement, temperature = content["agreement"], np.ravel(content["temperature"])
    lines = [
        "# Labels from language models",
        "",
        f"- Date: {content['date']}",
        f"- Models: {', '.join(content['models'])} at {content['base_url'] or 'OpenAI or own'}",
        f"- Classes: {', '.join(str(label) for label in content['classes'])}",
        "- Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()),
        f"- Labels of an utterance: {'any number' if content['multilabel'] else 'one'}",
        f"- Utterances of a call: {content['utterances_per_call']}",
        f"- Members: all {len(content['prompts']) * len(content['models'])} asked"
        if content["lead"] is None
        else f"- Members: asked in turn, until a label is {content['lead']:g} answers ahead",
        f"- Utterances: {content['utterances']}, without an answer: {content['without_answer']}",
        f"- Mean agreement: {'none' if agreement is None else f'{agreement:.3f}'}",
        f"- Calls: {usage['calls']} made; answers: {usage['cached']} known before, "
        f"{usage['failed']} failed",
        f"- Tokens: {usage['tokens_in']} in ({usage['tokens_cached']} of them cached), "
        f"{usage['tokens_out']} out; cost {usage['cost']:.4f}",
        "- Temperature: "
        + ", ".join(f"{value:.3f}" for value in temperature)
        + "; bias: "
        + ", ".join(f"{value:+.3f}" for value in content["bias"]),
        "",
        "## Prompts",
        "",
        "| id | task | turns before | turns after | examples | definitions | codes |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {prompt['id']} | {prompt['task']} | {prompt['context_turns']} | "
        f"{prompt['look_ahead']} | {prompt['n_examples']} | "
        f"{'yes' if prompt['definitions'] else 'no'} | {' '.join(prompt['codes'])} |"
        for prompt in content["prompts"]
    ]
    if content["failures"]:
        lines += ["", "## Answers that failed", "", "| reason | answers |", "|---|---|"]
        lines += [
            f"| {reason.replace('|', '/')} | {count} |"
            for reason, count in sorted(content["failures"].items(), key=lambda item: -item[1])
        ]
    return "\n".join(lines) + "\n"
