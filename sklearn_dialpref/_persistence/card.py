"""The model card of a saved classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn_dialpref._labels.fitted import FittedLabels


def model_card(labels: FittedLabels, state: dict[str, Any], metrics: Mapping[str, float]) -> str:
    parameters = state["parameters"]
    last_records = {record["stage"]: record for record in state["history"]}
    held_out_losses = {
        f"loss on held-out dialogues, stage {stage}": record["valid_loss"]
        for stage, record in last_records.items()
        if record["valid_loss"] is not None
    }
    measured = {**metrics, **held_out_losses}
    return "\n\n".join(
        [
            "# Classifier of utterances in dialogues",
            "Made by `sklearn_dialpref.DialoguePreferenceClassifier`: a sentence encoder and a "
            "small head that learned from human labels and from those of a large language model. "
            "Load it with `DialoguePreferenceClassifier.load(folder)`.",
            labels.card(),
            "## Training data\n\n" + _table(state["data"]) + _how_it_learned(state),
            "## Measured\n\n" + (_table(measured) if measured else "Nothing was given."),
            "## Parameters\n\n" + _table({k: v for k, v in parameters.items() if v is not None}),
            "## Versions\n\n" + _table(state["versions"]),
        ]
    ) + ("\n")


def _how_it_learned(state: dict[str, Any]) -> str:
    """A sentence or two on what became of the LLM's and the human labels."""
    training, schedule = state["training"], state["parameters"].get("schedule")
    status, gain = training["teacher_status"], training["teacher_bias_gain"]
    if status is None:
        return ""
    alone = "It learned from the human labels alone."
    if status == "absent":
        return f"\n\n{alone}"
    if status == "left out":
        return f"\n\nThe LLM's labels said nothing about the human ones. {alone}"
    if not state["data"]["with a human label"]:
        return "\n\nIt learned from the LLM's labels alone."
    text = "\n\nIt learned from the LLM's labels and from the human ones"
    if schedule == "pretrain_finetune":
        text += (
            f": of the way between the two it went {training['human_weight']:.0%} (at a "
            f"temperature of {training['temperature']:.2f}), as served held-out dialogues best"
        )
    if status == "corrected":
        text += (
            ". The LLM's leaning towards some classes was corrected first, which gained "
            f"{100 * gain:.1f} points of accuracy on held-out dialogues"
        )
    return text + "."


def _table(entries: Mapping[str, Any]) -> str:
    lines = [f"| {key} | {_cell(value)} |" for key, value in entries.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
