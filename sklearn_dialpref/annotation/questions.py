"""From dialogues to the questions that are put to a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, pairwise, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import Dialogues, codes_of, missing_in

from .client import Call, Question
from .completion import Messages
from .models import Model, Settings
from .prompts import MAX_CONTEXT, Prompt, as_data, as_turn
from .state_prompts import StatePrompt

__all__ = ["AnyPrompt", "Examples", "Turns", "calls", "labelled_rows", "stretches"]

AnyPrompt = Prompt | StatePrompt

MOST_TURNS = 50  # of a dialogue that is asked about at once


class Turns:
    """The utterances of dialogues, and those around each, as data for prompts.

    Parameters
    ----------
    dialogues : Dialogues
        With text.
    most : int
        Turns wanted on each side, at most.
    """

    def __init__(self, dialogues: Dialogues, most: int) -> None:
        assert dialogues.text is not None
        self.text, self.context = dialogues.text, dialogues.context
        self.speaker: list[str | None] = [None] * len(dialogues)
        if dialogues.speaker is not None:
            known = ~missing_in(dialogues.speaker)
            for row in np.flatnonzero(known):
                self.speaker[row] = str(dialogues.speaker[row])
        self.most = most
        self.order = np.lexsort((dialogues.turn, dialogues.group))
        self.position = np.empty_like(self.order)
        self.position[self.order] = np.arange(len(self.order))
        group = dialogues.group[self.order]
        self.start = np.searchsorted(group, group)
        self.end = np.searchsorted(group, group, side="right")

    def utterance(self, row: int) -> str:
        """The utterance itself."""
        return as_data(self.text[row], self.speaker[row])

    def numbered(self, row: int) -> str:
        """The utterance as a turn of a stretch."""
        return as_turn(self.text[row], self.speaker[row])

    def before(self, row: int) -> list[str]:
        """The turns before it, in order; or its prepared context as one."""
        if self.context is not None:
            ready = self.context[row]
            return [as_data(ready, limit=MAX_CONTEXT)] if ready else []
        index = self.position[row]
        return self._data(max(self.start[index], index - self.most), index)

    def after(self, row: int) -> list[str]:
        """The turns after it, in order."""
        index = self.position[row]
        return self._data(index + 1, min(self.end[index], index + 1 + self.most))

    def _data(self, start: int, end: int) -> list[str]:
        rows = self.order[start:end].tolist()
        return [as_data(self.text[row], self.speaker[row], MAX_CONTEXT) for row in rows]


class Examples:
    """Human-labelled utterances that prompts may show, by class.

    Parameters
    ----------
    labelled : sequence of (dialogue_id, text, class)
        In the order of preference.
    """

    def __init__(self, labelled: Sequence[tuple[Any, str, Any]] = ()) -> None:
        self.by_class: dict[Any, list[tuple[Any, str, Any]]] = {}
        for entry in labelled:
            self.by_class.setdefault(entry[2], []).append(entry)

    @classmethod
    def drawn_from(
        cls, dialogues: Dialogues, rows: NDArray[np.int64], labels: Sequence[Any], seed: int
    ) -> Examples:
        """The rows with their labels, in random order."""
        assert dialogues.text is not None
        order = np.random.RandomState(seed).permutation(len(rows))
        return cls(
            [
                (
                    dialogues.dialogue_id[rows[index]],
                    str(dialogues.text[rows[index]]),
                    labels[index],
                )
                for index in order
            ]
        )

    def of_others(
        self, dialogue: Any, texts: Collection[str], n_examples: int
    ) -> list[tuple[str, Any]]:
        """Examples of other dialogues and other texts, the classes in turn."""
        fitting = (
            ((shown, label) for other, shown, label in entries if other != dialogue
             and shown not in texts)
            for entries in self.by_class.values()
        )  # fmt: skip
        in_turn = chain.from_iterable(zip_longest(*fitting)) if n_examples else iter(())
        examples: list[tuple[str, Any]] = []
        for example in in_turn:
            if example is not None:
                examples.append(example)
            if len(examples) == n_examples:
                break
        return examples


def labelled_rows(dialogues: Dialogues, labels: NDArray[Any]) -> NDArray[np.int64]:
    """Rows with a label, in an order that does not depend on that of all rows.

    ``labels`` has -1 where there is none or, of several labels, NaN.
    """
    assert dialogues.text is not None
    order = np.lexsort((dialogues.turn, codes_of(dialogues.text), dialogues.group))
    known = labels >= 0 if labels.ndim == 1 else ~np.isnan(labels).all(axis=1)
    return order[known[order]]


def examples_among(
    labels: NDArray[Any], known: NDArray[np.int64], classes: NDArray[Any]
) -> tuple[NDArray[np.int64], list[Any]]:
    """Rows that prompts can show as examples, and their label, or a tuple of labels."""
    if labels.ndim == 1:
        return known, list(classes[labels[known]])
    whole = known[~np.isnan(labels[known]).any(axis=1)]
    return whole, [tuple(classes[row == 1].tolist()) for row in labels[whole]]


def calls(
    dialogues: Dialogues,
    rows: NDArray[np.int64],
    prompts: Sequence[AnyPrompt],
    examples: Examples,
    model: Model,
    settings: Settings,
    first_member: int = 0,
    numbers: Sequence[int] | None = None,
) -> Iterator[Call]:
    """The calls that ask about the rows, prompt by prompt, so that equal beginnings follow.

    Parameters
    ----------
    dialogues : Dialogues
    rows : ndarray of int
        What is asked about; the others are context.
    prompts : sequence of Prompt or StatePrompt
    examples : Examples
    model : OpenAIModel or CallableModel
    settings : Settings
    first_member : int, default=0
        Number of the first prompt in the ensemble.
    numbers : sequence of int, default=None
        Of the prompts that ask. None: all.

    Yields
    ------
    Call
        The keys of its questions depend on the model, the settings, the prompt, and the rendered
        text with all turns of the stretch.
    """
    turns = Turns(dialogues, max(max(p.context_turns, p.look_ahead) for p in prompts))
    asked = json.dumps([model.name, model.base_url, settings.to_dict()], sort_keys=True)
    for number in range(len(prompts)) if numbers is None else numbers:
        prompt = prompts[number]
        writer = Writer(turns, dialogues, prompt, examples, asked, first_member + number)
        if settings.utterances_per_call == 1:
            yield from map(writer.alone, rows.tolist())
            continue
        wanted = set(rows.tolist())
        shift = number / len(prompts)
        for stretch in stretches(turns, settings.utterances_per_call, shift):
            if not wanted.isdisjoint(stretch):
                yield writer.stretch(stretch, wanted)


def stretches(turns: Turns, size: int | str, shift: float) -> Iterator[list[int]]:
    """The rows of each stretch of each dialogue, in the order of its turns.

    Parameters
    ----------
    turns : Turns
    size : int or "dialogue"
        Turns of a stretch. "dialogue": all, but equal parts of at most ``MOST_TURNS``.
    shift : float
        In [0, 1): which share of a stretch the first one of each dialogue is shorter, so that an
        utterance is not in the same place of its stretch for all prompts.
    """
    starts = np.unique(turns.start)
    for start, end in zip(starts, [*starts[1:], len(turns.order)], strict=True):
        length = end - start
        most = -(-length // -(-length // MOST_TURNS)) if size == "dialogue" else int(size)
        first = most - int(shift * most) if length > most else most
        cuts = [start, *range(start + first, end, most), end]
        for left, right in pairwise(cuts):
            yield turns.order[left:right].tolist()


class Writer:
    """Puts rows to a model by one prompt.

    Parameters
    ----------
    turns : Turns
    dialogues : Dialogues
    prompt : Prompt or StatePrompt
    examples : Examples
    asked : str
        Model and settings, for the keys.
    member : int
        Number of the prompt in the ensemble.
    """

    def __init__(
        self,
        turns: Turns,
        dialogues: Dialogues,
        prompt: AnyPrompt,
        examples: Examples,
        asked: str,
        member: int,
    ) -> None:
        self.turns, self.dialogues, self.prompt = turns, dialogues, prompt
        self.examples, self.asked, self.member = examples, asked, member

    def alone(self, row: int) -> Call:
        """The call about one utterance."""
        turns, prompt = self.turns, self.prompt
        around = turns.before(row), turns.after(row)
        messages = prompt.render_data(turns.utterance(row), *around, self._shown([row]))
        key = self._key(messages)
        return Call((Question(row, self.member, key, prompt.id, prompt.form),), lambda _: messages)

    def stretch(self, rows: list[int], wanted: set[int]) -> Call:
        """The call about those of a stretch that are wanted."""
        data = {number: self.turns.numbered(row) for number, row in enumerate(rows, 1)}
        around = self.turns.before(rows[0]), self.turns.after(rows[-1])
        shown = self._shown(rows)

        def write(numbers: Sequence[int]) -> Messages:
            return self.prompt.render_turns(data, numbers, *around, shown)

        def write_alone(number: int) -> Messages:
            row = rows[number - 1]
            before = self.turns.before(row)
            return self.prompt.render_turns({number: data[number]}, [number], before, [], shown)

        # whatever is asked for later: all answers about a stretch belong together
        whole = write(tuple(data))
        questions = tuple(
            Question(row, self.member, self._key(whole, number), self.prompt.id,
                     self.prompt.form, number)
            for number, row in enumerate(rows, 1) if row in wanted
        )  # fmt: skip
        return Call(questions, write, write_alone)

    def _shown(self, rows: list[int]) -> list[tuple[str, Any]]:
        texts = {self.turns.text[row] for row in rows}
        dialogue = self.dialogues.dialogue_id[rows[0]]
        return self.examples.of_others(dialogue, texts, self.prompt.n_examples)

    def _key(self, messages: Messages, number: int | None = None) -> str:
        content: list[Any] = [self.asked, self.prompt.id, messages]
        if number is not None:
            content.append(number)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
