"""The record of an annotation as Markdown."""

from __future__ import annotations

from typing import Any

__all__ = ["card_markdown"]


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
        f"- Scoring: {settings['scoring']}, {settings['n_samples']} samples at temperature "
        f"{settings['temperature']:g} where sampled",
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
