"""What a fitted classifier has learned, as a table in its HTML representation."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["fitted_summary", "summary_html"]

MOST_CLASSES, LONGEST_NAME = 5, 40
TEACHER = {
    "absent": "no LLM labels",
    "used": "used as they are",
    "corrected": "used, with their bias towards some classes corrected",
    "left out": "left out, as they say nothing about the human ones",
}


def fitted_summary(estimator: Any) -> dict[str, str]:
    """A few words on the classes, the encoder, the labels and the teacher."""
    return {
        "Labels to predict" if estimator.multilabel_ else "Classes": _classes(estimator.classes_),
        "Encoder": _encoder(estimator),
        "Trained on": _labels(estimator.data_summary_),
        "LLM's labels": _teacher(estimator),
        "Human labels": _human(estimator),
    }


def summary_html(summary: Mapping[str, str]) -> str:
    """The summary with scikit-learn's own CSS classes, which suit light and dark pages."""
    rows = "".join(
        f'<tr class="default"><td class="param" style="white-space:nowrap">{escape(name)}</td>'
        f'<td style="text-align:left;overflow-wrap:anywhere">{escape(words)}</td></tr>'
        for name, words in summary.items()
    )
    return (
        '<div class="estimator-table dialpref-summary"><details open>'
        "<summary>What was learned</summary>"
        f'<table class="parameters-table"><tbody>{rows}</tbody></table></details></div>'
    )


def _cut(name: Any) -> str:
    text = " ".join(str(name).split())
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def _classes(classes: Any) -> str:
    names = ", ".join(_cut(name) for name in classes[:MOST_CLASSES].tolist())
    more = len(classes) - MOST_CLASSES
    return f"{len(classes)}: {names}" + (f" and {more} more" if more > 0 else "")


def _encoder(estimator: Any) -> str:
    if not estimator.fitted_labels_.n_texts:
        width = getattr(estimator, "n_features_in_", None)  # lost if a later fit has failed
        return "precomputed features" + (f", {width} columns" if width else "")
    encoder, kept = estimator.encoder, estimator.encoder_layers
    trained = estimator.trainable_layers
    name = str(encoder) if isinstance(encoder, str | Path) else type(encoder).__name__
    return (
        f"{name}; {'all' if kept is None else f'first {kept}'} layers kept, "
        f"{'all' if trained is None else f'top {trained}' if trained else 'none'} trained; "
        f"pooling: {estimator.pooling_}"
    )


def _labels(counts: Mapping[str, int]) -> str:
    return (
        f"{counts['with a human label']:,} human and {counts['with an LLM label']:,} LLM labels "
        f"({counts['with both']:,} rows with both) on {counts['utterances']:,} utterances of "
        f"{counts['dialogues']:,} dialogues"
    )


def _teacher(estimator: Any) -> str:
    words = TEACHER.get(estimator.teacher_status_, "not known, as an earlier version saved it")
    gain = estimator.teacher_bias_gain_
    if gain is None:
        return words
    return f"{words} (correction: {100 * gain:+.1f} points of accuracy on held-out dialogues)"


def _human(estimator: Any) -> str:
    weight, temperature = estimator.human_weight_, estimator.temperature_
    if weight is None or temperature is None:
        return "not known, as an earlier version saved it"
    return f"weight {weight:.2f} (human_weight_), temperature {temperature:.2f}"
