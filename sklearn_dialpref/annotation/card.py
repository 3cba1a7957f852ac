"""The record of an annotation."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .annotator import LLMAnnotator
    from .models import Settings

__all__ = ["card_content", "card_markdown"]


def card_content(annotator: LLMAnnotator, date: str, settings: Settings) -> dict[str, Any]:
    """What was asked, of whom, at what cost, and what came of it, as JSON can hold it.

    Parameters
    ----------
    annotator : LLMAnnotator
        That has labelled something.
    date : str
        Of its last pass.
    settings : Settings

    Returns
    -------
    dict
    """
    agreement = annotator.agreement_[~np.isnan(annotator.agreement_)]
    answered = ~np.isnan(annotator.scores_[:, :, 0])
    how = annotator.combination_
    return {
        "date": date,
        "models": list(dict.fromkeys(model for model, _ in annotator.members_)),
        "base_url": annotator.base_url,
        "classes": annotator.classes_.tolist(),
        "settings": settings.to_dict(),
        "prompts": [{"id": prompt.id, **prompt.to_dict()} for prompt in annotator.prompts_],
        "utterances": len(answered),
        "without_answer": int((~answered.any(axis=1)).sum()),
        "agreement": float(agreement.mean()) if len(agreement) else None,
        "weights": how.weights.tolist(),
        "temperature": how.temperature,
        "bias": how.bias.tolist(),
        "usage": annotator.usage_,
        "failures": dict(Counter(failure["reason"] for failure in annotator.failures_)),
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
