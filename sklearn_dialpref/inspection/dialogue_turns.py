"""The turns of one dialogue with all that is shown of them, and which of them are folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import Dialogues, label_array, missing_in

from .dialogue_answers import LLM, Answer

SUGGESTED, SUSPECT = "suggested", "suspect"
# folding fewer turns would hide them and save no room
FEWEST_FOLDED = 3


class Note(NamedTuple):
    """Why a turn is flagged: own words, and what comes from the data."""

    kind: str
    title: str
    details: tuple[str, ...] = ()


class Turn(NamedTuple):
    """One utterance; ``speaker_code`` counts the speakers in the order of their first turns."""

    row: int
    number: int
    speaker: str | None
    speaker_code: int | None
    text: str
    answers: tuple[Answer, ...]
    notes: tuple[Note, ...]

    @property
    def differs(self) -> bool:
        """Whether human, LLM and student disagree."""
        return any(answer.differs_from for answer in self.answers)


class Stretch(NamedTuple):
    """Successive turns that are shown, or folded."""

    folded: bool
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Conversation:
    """One dialogue, ready to be shown."""

    title: str
    caption: str
    turns: tuple[Turn, ...]
    max_turns: int | None

    @property
    def n_speakers(self) -> int:
        """The number of named speakers."""
        return len({turn.speaker_code for turn in self.turns} - {None})

    def summary(self) -> str:
        """The number of turns, and of those that are flagged."""
        return ", ".join([counted(len(self.turns), "turn"), *flags_in(self.turns)])

    def stretches(self) -> Iterator[Stretch]:
        """The turns in order, those that are shown apart from those that are folded."""
        is_shown = self._shown()
        for folded, group in groupby(self.turns, lambda turn: turn.row not in is_shown):
            yield Stretch(folded, tuple(group))

    def _shown(self) -> set[int]:
        """Rows of the turns that are shown: the flagged ones and their neighbours come first."""
        limit = len(self.turns) if self.max_turns is None else self.max_turns
        flagged = [bool(turn.notes) for turn in self.turns]
        urgency = [
            0 if flagged[place] else
            1 if any(flagged[max(0, place - 1) : place + 2]) else
            2 if turn.differs else 3
            for place, turn in enumerate(self.turns)
        ]  # fmt: skip
        places = set(sorted(range(len(urgency)), key=lambda place: urgency[place])[:limit])
        for folded, group in groupby(range(len(urgency)), lambda place: place not in places):
            gap = list(group)
            if folded and len(gap) < FEWEST_FOLDED:
                places.update(gap)
        return {self.turns[place].row for place in places}


def counted(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def flags_in(turns: tuple[Turn, ...]) -> list[str]:
    """How many of the turns are flagged, in words."""
    kinds = Counter(note.kind for turn in turns for note in turn.notes)
    counts = {
        counted(n_differ := sum(turn.differs for turn in turns), "disagreement"): n_differ,
        counted(kinds[SUSPECT], "suspect label"): kinds[SUSPECT],
        f"{kinds[SUGGESTED]:,} to label next": kinds[SUGGESTED],
    }
    return [words for words, count in counts.items() if count]


def percent(probability: float) -> str:
    """A probability as it is shown; only what is certain is 0 or 100 %."""
    if 0.995 <= probability < 1:
        return ">99 %"
    if 0 < probability < 0.005:
        return "<1 %"
    return f"{100 * probability:.0f} %"


def label_text(label: Any) -> str:
    """A label as it is shown; ints that became floats beside missing ones are ints."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


# -- reading --------------------------------------------------------------------------------


def turns_of(
    dialogues: Dialogues,
    rows: NDArray[np.int64],
    answers: list[tuple[Answer, ...]],
    notes: dict[int, tuple[Note, ...]],
) -> tuple[Turn, ...]:
    """The turns of these rows, in their order."""
    assert dialogues.text is not None
    speakers = _speakers(dialogues, rows)
    codes = {name: code for code, name in enumerate(dict.fromkeys(filter(None, speakers)))}
    given = dialogues.turn_number
    numbers = np.arange(1, len(rows) + 1) if given is None else given[rows]
    return tuple(
        Turn(
            row=int(row),
            number=int(number),
            speaker=speaker,
            speaker_code=codes.get(speaker or ""),
            text=dialogues.text[row],
            answers=said,
            notes=notes.get(int(row), ()),
        )
        for row, number, speaker, said in zip(rows, numbers, speakers, answers, strict=True)
    )


def _speakers(dialogues: Dialogues, rows: NDArray[np.int64]) -> list[str | None]:
    if dialogues.speaker is None:
        return [None] * len(rows)
    names = dialogues.speaker[rows]
    missing = missing_in(names)
    return [None if no else str(name) for name, no in zip(names, missing, strict=True)]


def notes_on(suggestions: Any, suspects: Any, n_rows: int) -> dict[int, tuple[Note, ...]]:
    """The notes on each row of X that has any."""
    notes: dict[int, tuple[Note, ...]] = {}
    for row, note in [*_suspect_notes(suspects, n_rows), *_suggestion_notes(suggestions, n_rows)]:
        notes[row] = (*notes.get(row, ()), note)
    return notes


def _suggestion_notes(suggestions: Any, n_rows: int) -> Iterator[tuple[int, Note]]:
    if suggestions is None:
        return
    rows = _positions(getattr(suggestions, "rows", suggestions), n_rows, "suggestions")
    reasons = getattr(suggestions, "reason", [None] * len(rows))
    for place, (row, reason) in enumerate(zip(rows, reasons, strict=True), start=1):
        details = () if reason is None else (str(reason),)
        yield row, Note(SUGGESTED, f"Label next, no. {place:,}", details)


def _suspect_notes(suspects: Any, n_rows: int) -> Iterator[tuple[int, Note]]:
    if suspects is None:
        return
    fields = ("row", "source", "label", "suggestion", "probability_wrong")
    if lacking := [name for name in fields if not hasattr(suspects, name)]:
        raise TypeError(
            f"suspects must be what suspect_labels returns, but a {type(suspects).__name__} has "
            f"no {lacking}; to flag rows of your own, pass them as suggestions"
        )
    columns = [np.asarray(getattr(suspects, name)) for name in fields]
    _positions(columns[0], n_rows, "suspects")
    probable = columns[-1] > 0.5  # suspect_labels lists all labels, sound ones too
    for row, source, label, better, wrong in zip(
        *(column[probable].tolist() for column in columns), strict=True
    ):
        owner = LLM if source == "llm" else source.capitalize()
        title = f"{owner} label is probably wrong ({percent(wrong)})"
        yield row, Note(SUSPECT, title, (label_text(label), label_text(better)))


def _positions(rows: Any, n_rows: int, name: str) -> list[int]:
    """Positions of rows in X."""
    array = label_array(rows, name) if len(rows) else np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must hold positions of rows in X, but holds {array.ravel()[:3].tolist()} of "
            f"the type {array.dtype}; np.flatnonzero(…) makes positions of a mask"
        )
    if (outside := (array < 0) | (array >= n_rows)).any():
        raise ValueError(
            f"{name} names row {array[outside][0]}, but X has {n_rows} rows; pass the X that they "
            "were made for"
        )
    return [int(row) for row in array]
