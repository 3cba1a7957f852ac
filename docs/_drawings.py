"""The start page's pictures, drawn as SVG while the site is built.

They are part of the page, so that their text is text and their colours follow its theme
(`_static/site.css`). `python docs/_drawings.py` writes `_static/dialogue.png` for the README.
"""

import shutil
from html import escape
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from docutils import nodes
from docutils.parsers.rst import Directive

STATIC = Path(__file__).parent / "_static"
RESULTS = Path(__file__).parents[1] / "benchmarks/results/evidence/cells_test.csv"
METHODS = {
    "default": "This library's default",
    "llm_votes": "The LLM's own labels",
    "distillation_then_human_layers": "Distillation, then human labels, on our features",
    "distillation_then_human": "Distillation, then human labels",
    "default_human_only": "Human labels only",
}
MEASURES = {"accuracy": "Accuracy", "macro_f1": "Macro-F1"}
WIDTH = 440


class Turn(NamedTuple):
    speaker: str
    lines: tuple[str, ...]
    label: str
    probability: float


# Utterances that the start page's code leaves for testing, with the answers of its classifier.
CHAT = "chat_41"
TURNS = [
    Turn(
        "customer",
        (
            'the front door lock says "jammed" in',
            "the app but it isnt. its open. my house",
            "is just.. open",
        ),
        "negative",
        0.59,
    ),
    Turn(
        "agent",
        ("Is the bolt sticking out of the door", "edge, or is it fully in?"),
        "neutral",
        0.99,
    ),
    Turn("customer", ("fully in",), "neutral", 0.97),
    Turn(
        "agent",
        (
            "Okay, open the door wide and press lock",
            "from the app so we see whether the",
            "motor moves at all.",
        ),
        "neutral",
        1.00,
    ),
    Turn("customer", ("it moves! comes out nicely",), "positive", 0.93),
]


def dialogue() -> str:
    """A chat whose utterances are labelled as they arrive."""
    parts, y = [_sources()], 74
    for turn in TURNS:
        parts.append(_bubble(turn, y))
        y += 22 * len(turn.lines) + 54
    return _svg(y - 8, "A chat in which every utterance gets a label", parts)


def results(measure: str) -> str:
    """Bars of each method's mean over tasks, at 100 human labels."""
    parts = [f'<text class="dp-head" x="0" y="20">{MEASURES[measure]}</text>']
    for at, (method, value) in enumerate(means(measure).items()):
        y, own = 48 + 56 * at, " dp-own" * (method == "default")
        parts += [
            f'<text class="dp-name{own}" x="0" y="{y}">{escape(METHODS[method])}</text>',
            f'<rect class="dp-track" x="0" y="{y + 9}" width="370" height="18" rx="4"/>',
            f'<rect class="dp-bar{own}" x="0" y="{y + 9}" width="{370 * value:.1f}" '
            'height="18" rx="4"/>',
            f'<text class="dp-value{own}" x="{WIDTH}" y="{y + 24}">{value:.3f}</text>',
        ]
    return _svg(48 + 56 * len(METHODS) - 16, f"{MEASURES[measure]} of five methods", parts)


def means(measure: str) -> pd.Series:
    """Means over seeds, then over tasks, of each method."""
    cells = pd.read_csv(RESULTS, dtype={"budget": str})
    cells = cells[(cells["student"] == "frozen") & (cells["budget"] == "100")]
    cells = cells.drop_duplicates(["task", "seed", "method"], keep="last")
    return cells.groupby(["method", "task"])[measure].mean().groupby("method").mean()[[*METHODS]]


def _sources() -> str:
    """What the student learns from."""
    return (
        '<rect class="dp-source" x="0" y="0" width="124" height="52" rx="8"/>'
        '<text class="dp-strong" x="62" y="22">human labels</text>'
        '<text class="dp-small" x="62" y="41">few, right</text>'
        '<text class="dp-strong" x="138" y="31">+</text>'
        '<rect class="dp-source" x="152" y="0" width="124" height="52" rx="8"/>'
        '<text class="dp-strong" x="214" y="22">LLM labels</text>'
        '<text class="dp-small" x="214" y="41">many, noisy</text>'
        '<path class="dp-arrow" d="M284 26h18m-6-6l6 6-6 6"/>'
        '<rect class="dp-student" x="310" y="0" width="130" height="52" rx="8"/>'
        '<text class="dp-inverse" x="375" y="22">small student</text>'
        '<text class="dp-inverse dp-small" x="375" y="41">1.8 ms on a CPU</text>'
    )


def _bubble(turn: Turn, y: int) -> str:
    """An utterance, and the student's label below it."""
    height, width = 22 * len(turn.lines) + 20, 28 + 8.6 * max(map(len, turn.lines))
    left = 0 if turn.speaker == "customer" else WIDTH - width
    chip = 10 if left == 0 else WIDTH - 134
    text = "".join(
        f'<text x="{left + 14:.0f}" y="{y + 24 + 22 * row}">{escape(line)}</text>'
        for row, line in enumerate(turn.lines)
    )
    return (
        f'<rect class="dp-bubble dp-{turn.speaker}" x="{left:.0f}" y="{y}" width="{width:.0f}" '
        f'height="{height}" rx="12"/>{text}'
        f'<rect class="dp-chip dp-{turn.label}" x="{chip}" y="{y + height - 6}" width="124" '
        f'height="26" rx="13"/><text class="dp-chip-text" x="{chip + 62}" '
        f'y="{y + height + 12}">{turn.label} {turn.probability:.2f}</text>'
    )


def _svg(height: int, title: str, parts: list[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg class="dp-drawing" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>\n{body}\n</svg>'
    )


class Drawing(Directive):
    """``.. drawing:: dialogue``, or the name of a measure."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        svg = dialogue() if name == "dialogue" else results(name)
        return [nodes.raw("", svg, format="html")]


def setup(app):
    app.add_directive("drawing", Drawing)
    return {"parallel_read_safe": True}


def write_png() -> None:
    """The dialogue as a picture for pages that show no SVG, such as the package index."""
    from playwright.sync_api import sync_playwright

    style = (STATIC / "site.css").read_text()
    theme = "--pst-color-text-base: #222832; --pst-color-background: #fff; font-family: sans-serif"
    page = f'<html data-theme="light" style="{theme}"><style>{style}</style>{dialogue()}'
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium-headless-shell"))
        window = browser.new_page(device_scale_factor=3)
        window.set_content(page)
        window.evaluate("document.querySelector('svg').style.width = '440px'")
        window.locator("svg").screenshot(path=STATIC / "dialogue.png")
        browser.close()


if __name__ == "__main__":
    write_png()
