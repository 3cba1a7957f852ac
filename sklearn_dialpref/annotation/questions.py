"""From dialogues to the questions that are put to a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.validation import Dialogues, codes_of, missing_in

from .bank import PromptBank
from .client import Question
from .models import Model, Settings
from .prompts import MAX_CONTEXT, as_data

__all__ = ["Examples", "Turns", "labelled_rows", "questions"]


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
        cls, dialogues: Dialogues, rows: NDArray[np.int64], labels: NDArray[Any], seed: int
    ) -> Examples:
        """The rows with their labels, in random order."""
        assert dialogues.text is not None
        order = np.random.RandomState(seed).permutation(len(rows))
        return cls(
            [
                (dialogues.dialogue_id[row], str(dialogues.text[row]), label)
                for row, label in zip(rows[order], labels[order], strict=True)
            ]
        )

    def of_others(self, dialogue: Any, text: str, n_examples: int) -> list[tuple[str, Any]]:
        """Examples of other dialogues and other texts, the classes in turn."""
        fitting = (
            ((shown, label) for other, shown, label in entries if other != dialogue
             and shown != text)
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


def labelled_rows(dialogues: Dialogues, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows whose label is not -1, in an order that does not depend on that of all rows."""
    assert dialogues.text is not None
    order = np.lexsort((dialogues.turn, codes_of(dialogues.text), dialogues.group))
    return order[labels[order] >= 0]


def questions(
    dialogues: Dialogues,
    rows: NDArray[np.int64],
    prompts: PromptBank,
    examples: Examples,
    model: Model,
    settings: Settings,
    first_member: int = 0,
) -> Iterator[Question]:
    """The questions about the rows, row by row and prompt by prompt.

    Parameters
    ----------
    dialogues : Dialogues
    rows : ndarray of int
        What is asked about; the others are context.
    prompts : PromptBank
    examples : Examples
    model : OpenAIModel or CallableModel
    settings : Settings
    first_member : int, default=0
        Number of the first prompt in the ensemble.

    Yields
    ------
    Question
        Its key depends on the model, the settings, the prompt and the rendered text.
    """
    turns = Turns(dialogues, max(max(p.context_turns, p.look_ahead) for p in prompts))
    asked = json.dumps([model.name, model.base_url, settings.to_dict()], sort_keys=True)
    for row in rows.tolist():
        utterance, before, after = turns.utterance(row), turns.before(row), turns.after(row)
        dialogue, text = dialogues.dialogue_id[row], turns.text[row]
        for number, prompt in enumerate(prompts):
            shown = examples.of_others(dialogue, text, prompt.n_examples)
            messages = prompt.render_data(utterance, before, after, shown)
            content = json.dumps([asked, prompt.id, messages])
            yield Question(
                row,
                first_member + number,
                hashlib.sha256(content.encode()).hexdigest(),
                prompt.id,
                messages,
                tuple(prompt.codes or ()),
            )
