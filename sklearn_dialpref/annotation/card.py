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
    combination: Combination,
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
    combination : Combination
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
        "settings": panel.settings.to_dict(),
        "prompts": [{"id": prompt.id, **prompt.to_dict()} for prompt in panel.prompts],
        "utterances": len(answered),
        "without_answer": int((~answered.any(axis=1)).sum()),
        "agreement": float(agreement.mean()) if len(agreement) else None,
        "weights": combination.weights.tolist(),
        "temperature": combination.temperature,
        "bias": combination.bias.tolist(),
        "usage": usage,
        "failures": dict(Counter(failure["reason"] for failure in failures)),
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
    agreement = content["agreement"]
    lines = [
        "# Labels from language models",
        "",
        f"- Date: {content['date']}",
        f"- Models: {', '.join(content['models'])} at {content['base_url'] or 'OpenAI or own'}",
        f"- Classes: {', '.join(str(label) for label in content['classes'])}",
        "- Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()),
        f"- Utterances: {content['utterances']}, without an answer: {content['without_answer']}",
        f"- Mean agreement: {'none' if agreement is None else f'{agreement:.3f}'}",
        f"- Calls: {usage['calls']} made, {usage['cached']} known before, "
        f"{usage['failed']} failed",
        f"- Tokens: {usage['tokens_in']} in, {usage['tokens_out']} out; cost {usage['cost']:.4f}",
        f"- Temperature: {content['temperature']:.3f}; bias: "
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
