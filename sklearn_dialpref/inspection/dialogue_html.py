"""Dialogues as HTML, without scripts and without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html import escape
from importlib.resources import files

from .dialogue_answers import Answer
from .dialogue_text import with_visible
from .dialogue_turns import (
    Conversation,
    Note,
    Stretch,
    Turn,
    counted,
    flags_in,
    label_text,
    percent,
)

_N_COLOURS = 6
_MOST_CHARACTERS, _MOST_LINES = 1200, 16
# nothing that slipped through could run or load
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def as_fragment(conversation: Conversation) -> str:
    """The dialogue as a part of a page, with its style."""
    parts = [
        f"<style>{_style()}</style>",
        f'<div class="dialpref-view" role="region" aria-label="{shown(conversation.title)}">',
        f'<div class="dp-title">{_isolated(conversation.title)}</div>',
        f'<div class="dp-caption">{escape(conversation.summary())}</div>',
    ]
    if conversation.caption:
        parts.append(f'<div class="dp-caption">{shown(conversation.caption)}</div>')
    two_sides = conversation.n_speakers == 2
    for stretch in conversation.stretches():
        parts += _stretch(stretch, two_sides)
    return "".join([*parts, "</div>"])


def as_page(conversation: Conversation) -> str:
    """The dialogue as a page of its own."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{shown(conversation.title)}</title></head>"
        f"<body>{as_fragment(conversation)}</body></html>"
    )


def shown(text: str) -> str:
    """Text from outside as HTML; every such text goes through here."""
    return with_visible(escape(text))


def _isolated(text: str) -> str:
    """The same where other text follows on the line, which it must not reorder."""
    return f"<bdi>{shown(text)}</bdi>"


def _marked(text: str) -> str:
    """The same with invisible characters set off from what is written like them."""
    return with_visible(escape(text), lambda code: f'<span class="dp-hidden">{code}</span>')


@cache
def _style() -> str:
    return (files(__package__) / "dialogue_view.css").read_text(encoding="utf-8")


def _stretch(stretch: Stretch, two_sides: bool) -> Iterator[str]:
    if stretch.folded:
        words = ", ".join([counted(len(stretch.turns), "more turn"), *flags_in(stretch.turns)])
        yield f'<details class="dp-fold"><summary class="dp-more">{escape(words)}</summary>'
    yield '<div role="list">'
    for turn in stretch.turns:
        yield from _turn(turn, two_sides)
    yield "</div></details>" if stretch.folded else "</div>"


def _turn(turn: Turn, two_sides: bool) -> Iterator[str]:
    right = " dp-right" if two_sides and turn.speaker_code == 1 else ""
    colour = "" if turn.speaker_code is None else f" dp-s{turn.speaker_code % _N_COLOURS}"
    yield f'<div role="listitem" class="dp-turn{colour}{right}"><div class="dp-bubble">'
    number = f'<span title="row {turn.row} of X">{turn.number}</span>'
    name = "" if turn.speaker is None else f"{_isolated(turn.speaker)} "
    yield f'<div class="dp-head">{name}{number}</div>'
    yield f"{_text(turn.text)}</div>"
    if turn.answers:
        yield f'<div class="dp-labels">{"".join(map(_answer, turn.answers))}</div>'
    yield from map(_note, turn.notes)
    yield "</div>"


def _text(text: str) -> str:
    lines = "".join(text.splitlines(keepends=True)[:_MOST_LINES])
    end = min(len(lines), _MOST_CHARACTERS)
    head, rest = text[:end], text[end:]
    opened = f'<div class="dp-text" dir="auto">{_marked(head)}</div>'
    if not rest:
        return opened
    words = counted(len(rest), "more character")
    return (
        f'{opened}<details><summary class="dp-more">{words}</summary>'
        f'<div class="dp-text" dir="auto">{_marked(rest)}</div></details>'
    )


def _answer(answer: Answer) -> str:
    labels = ", ".join(
        _isolated(label_text(label)) + ("" if share is None else f" {escape(percent(share))}")
        for label, share in answer.labels.items()
    )
    differs, note = "", ""
    if answer.differs_from:
        differs, note = " dp-differs", f' <b class="dp-unlike">≠ {answer.differs_from}</b>'
    return (
        f'<span class="dp-label{differs}"><small>{answer.source}</small> '
        f"{labels or 'no label'}{note}</span> "
    )


def _note(note: Note) -> str:
    details = " → ".join(map(_isolated, note.details))
    return (
        f'<div class="dp-note dp-{note.kind}"><b>{escape(note.title)}</b>'
        f"{': ' if details else ''}{details}</div>"
    )
