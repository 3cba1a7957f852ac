"""The record of an annotation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ensemble import Combination
from .forms import AnyCodes
from .panel import Panel
from .state_slots import SlotNames

__all__ = ["card_content", "card_markdown", "state_card_content"]


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
    unanswered = np.asarray(np.isnan(scores[:, :, 0]).all(axis=1))
    return {
        **_asked(panel, date, base_url, usage, failures),
        "classes": panel.classes.tolist(),
        "multilabel": isinstance(panel.prompts[0].form, AnyCodes),
        "lead": lead,
        **_answered(unanswered, agreement),
        **_learned(combination),
    }


def state_card_content(
    panel: Panel,
    *,
    date: str,
    base_url: str | None,
    names: SlotNames,
    states: NDArray[Any],
    agreement: NDArray[np.float64],
    usage: dict[str, Any],
    failures: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """As :func:`card_content`, of dialogue states.

    Parameters
    ----------
    panel : Panel
    date : str
    base_url : str or None
    names : SlotNames
    states : ndarray of object, shape (n, n_members)
        Of the utterances that were asked about.
    agreement : ndarray of shape (n,)
    usage : dict
    failures : sequence of mapping

    Returns
    -------
    dict
    """
    unanswered = np.array([all(state is None for state in row) for row in states], dtype=bool)
    slots = {name: list(names.values_of.get(name, ())) or None for name in names.slot_of}
    return {
        **_asked(panel, date, base_url, usage, failures),
        "slots": slots,
        **_answered(unanswered, agreement),
    }


def _asked(
    panel: Panel,
    date: str,
    base_url: str | None,
    usage: dict[str, Any],
    failures: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Who was asked, how, and at what cost."""
    return {
        "date": date,
        "models": [model.name for model in panel.models],
        "base_url": base_url,
        "mode": panel.mode,
        "utterances_per_call": panel.settings.utterances_per_call,
        "settings": panel.settings.to_dict(),
        "prompts": [{"id": prompt.id, **prompt.to_dict()} for prompt in panel.prompts],
        "usage": usage,
        "failures": dict(Counter(failure["reason"] for failure in failures)),
    }


def _answered(unanswered: NDArray[np.bool_], agreement: NDArray[np.float64]) -> dict[str, Any]:
    """Of how many utterances something is known, and how far members agree."""
    agreement = agreement[~np.isnan(agreement)]
    return {
        "utterances": len(unanswered),
        "without_answer": int(unanswered.sum()),
        "agreement": float(agreement.mean()) if len(agreement) else None,
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
        As ``card("json")`` of an annotator has it.

    Returns
    -------
    str
    """
    states = "slots" in content
    lines = [
        *_head("Dialogue states" if states else "Labels", content),
        *(_of_states(content) if states else _of_labels(content)),
    ]
    if content["failures"]:
        lines += ["", "## Answers that failed", "", "| reason | answers |", "|---|---|"]
        lines += [
            f"| {_cell(reason)} | {count} |"
            for reason, count in sorted(content["failures"].items(), key=lambda item: -item[1])
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text as it can stand in a table."""
    return " ".join(text.replace("|", "/").split())


def _of_labels(content: dict[str, Any]) -> list[str]:
    temperature = ", ".join(f"{value:.3f}" for value in np.ravel(content["temperature"]))
    bias = ", ".join(f"{value:+.3f}" for value in content["bias"])
    return [
        f"- Classes: {', '.join(str(label) for label in content['classes'])}",
        f"- Labels of an utterance: {'any number' if content['multilabel'] else 'one'}",
        f"- Members: all {len(content['prompts']) * len(content['models'])} asked"
        if content["lead"] is None
        else f"- Members: asked in turn, until a label is {content['lead']:g} answers ahead",
        f"- Temperature: {temperature}; bias: {bias}",
        "",
        "## Prompts",
        "",
        "| id | task | turns before | turns after | examples | definitions | codes |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {prompt['id']} | {prompt['task']} | {prompt['context_turns']} | "
            f"{prompt['look_ahead']} | {prompt['n_examples']} | "
            f"{'yes' if prompt['definitions'] else 'no'} | {' '.join(prompt['codes'])} |"
            for prompt in content["prompts"]
        ),
    ]


def _of_states(content: dict[str, Any]) -> list[str]:
    return [
        *("", "## Slots", "", "| slot | values |", "|---|---|"),
        *(
            f"| {name} | {'a short text' if values is None else _cell(', '.join(values))} |"
            for name, values in content["slots"].items()
        ),
        *("", "## Prompts", "", "| id | turns before |", "|---|---|"),
        *(f"| {prompt['id']} | {prompt['context_turns']} |" for prompt in content["prompts"]),
    ]


def _head(what: str, content: dict[str, Any]) -> list[str]:
    usage, agreement = content["usage"], content["agreement"]
    settings = ", ".join(f"{name} {value}" for name, value in content["settings"].items())
    return [
        f"# {what} from language models",
        "",
        f"- Date: {content['date']}",
        f"- Models: {', '.join(content['models'])} at {content['base_url'] or 'OpenAI or own'}",
        f"- Asked: {'in batches' if content['mode'] == 'batch' else 'live'}",
        f"- Settings: {settings}",
        f"- Utterances of a call: {content['utterances_per_call']}",
        f"- Utterances: {content['utterances']}, without an answer: {content['without_answer']}",
        f"- Mean agreement: {'none' if agreement is None else f'{agreement:.3f}'}",
        f"- Calls: {usage['calls']} made; answers: {usage['cached']} known before, "
        f"{usage['failed']} failed",
        f"- Tokens: {usage['tokens_in']} in ({usage['tokens_cached']} of them cached), "
        f"{usage['tokens_out']} out; cost {usage['cost']:.4f}",
    ]
