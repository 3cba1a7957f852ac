r"""Dialogues as text for terminals, and characters that must not act made visible.

An utterance is data from outside: an escape sequence in it would steer the terminal, a
right-to-left override would reorder what stands beside it, and a zero-width character hides.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .dialogue_answers import Answer
from .dialogue_turns import Conversation, Note, Turn, counted, flags_in, label_text, percent

_WITHOUT_TERMINAL = (100, 24)
_WIDEST_SPEAKER = 16
_NARROWEST_TEXT = 20
_MOST_LINES = 12

# Controls but for line break and tab, bidirectional and other format characters, letters without
# a shape, lone surrogates; joiners where they join nothing (in emoji and many scripts they do),
# and variation selectors behind another one, which can carry a hidden text.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e"
    "\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    "|(?<![\u0590-\u1fff\u2190-\U0001faff])[\u200c\u200d]"
    "|[\u200c\u200d](?![\u0590-\u1fff\u2190-\U0001faff])"
    "|(?<=[\ufe00-\ufe0f])[\ufe00-\ufe0f]"
)


def with_visible(text: str, shown_as: Callable[[str], str] = str) -> str:
    r"""The text with invisible characters as escapes; each goes through ``shown_as``.

    Examples
    --------
    >>> from sklearn_dialpref.inspection.dialogue_text import with_visible
    >>> print(with_visible("a\x00b\u202ec"))
    a\x00b\u202ec
    """
    text = text.replace("\r\n", "\n")
    return _INVISIBLE.sub(lambda found: shown_as(_escape(found[0])), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def as_text(conversation: Conversation) -> str:
    """The dialogue as lines that fit the terminal."""
    stretches = list(conversation.stretches())
    layout = _layout([turn for one in stretches if not one.folded for turn in one.turns])
    lines = [f"{_one_line(conversation.title)}: {conversation.summary()}"]
    lines += [conversation.caption] if conversation.caption else []
    for stretch in stretches:
        lines.append("")
        if stretch.folded:
            words = [counted(len(stretch.turns), "more turn"), *flags_in(stretch.turns)]
            lines.append(f"... {', '.join(words)} ...")
        else:
            for turn in stretch.turns:
                lines += _lines_of(turn, layout)
    return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class _Layout:
    """Widths of the columns."""

    number: int
    speaker: int
    text: int


def _layout(turns: list[Turn]) -> _Layout:
    columns = shutil.get_terminal_size(_WITHOUT_TERMINAL).columns
    number = max((len(str(turn.number)) for turn in turns), default=1)
    names = [display_width(_one_line(turn.speaker or "")) for turn in turns]
    speaker = min(_WIDEST_SPEAKER, columns // 4, max(names, default=0))
    before = 2 + number + 2 + (speaker + 2 if speaker else 0)
    return _Layout(number, speaker, max(_NARROWEST_TEXT, columns - before))


def _lines_of(turn: Turn, layout: _Layout) -> Iterator[str]:
    mark = "!" if turn.differs or turn.notes else " "
    before = f"{mark} {turn.number:>{layout.number}}  "
    if layout.speaker:
        name = cut(_one_line(turn.speaker or ""), layout.speaker)
        before += name + " " * (layout.speaker - display_width(name) + 2)
    indent = display_width(before)
    for line in _text_lines(turn.text, layout.text):
        yield before + line
        before = " " * indent
    for remark in _remarks(turn):
        # left of the text, where no line break in the text can get
        before = f"{'- ':>{indent}}"
        for line in wrapped(remark, layout.text):
            yield before + line
            before = " " * indent


def _text_lines(text: str, width: int) -> Iterator[str]:
    lines = wrapped(with_visible(text), width)
    yield from lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        yield f"... {counted(len(lines) - _MOST_LINES, 'more line')} ..."


def _remarks(turn: Turn) -> Iterator[str]:
    if turn.answers:
        yield " | ".join(map(_answer, turn.answers))
    yield from map(_note, turn.notes)


def _answer(answer: Answer) -> str:
    labels = ", ".join(
        _one_line(label_text(label)) + ("" if share is None else f" {percent(share)}")
        for label, share in answer.labels.items()
    )
    differs = f" != {answer.differs_from}" if answer.differs_from else ""
    return f"{answer.source} {labels or 'no label'}{differs}"


def _note(note: Note) -> str:
    details = " -> ".join(map(_one_line, note.details))
    return f"{note.title}: {details}" if details else note.title


# -- widths -----------------------------------------------------------------------------------


def _one_line(text: str) -> str:
    return " ".join(with_visible(text).split())


def display_width(text: str) -> int:
    """Columns of a terminal that the text takes."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The text, shortened to ``width`` columns."""
    if display_width(text) <= width:
        return text
    return _first_columns(text, width - 3) + "..."


def _first_columns(text: str, width: int) -> str:
    used = 0
    for place, character in enumerate(text):
        used += _columns_of(character)
        if used > width:
            return text[:place]
    return text


def wrapped(text: str, width: int) -> list[str]:
    r"""Lines of at most ``width`` columns; textwrap would count characters instead.

    Examples
    --------
    >>> from sklearn_dialpref.inspection.dialogue_text import wrapped
    >>> wrapped("my parcel\nis veryverylate", 9)
    ['my parcel', 'is', 'veryveryl', 'ate']
    """
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if display_width(joined) <= width:
                line = joined
                continue
            lines += [line] if line else []
            while display_width(word) > width:
                head = _first_columns(word, width)
                lines.append(head)
                word = word[len(head) :]
            line = word
        lines.append(line)
    return lines
