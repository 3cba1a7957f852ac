"""One pass: all members of a panel are asked about some rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from sklearn_dialpref._dialogues.validation import Dialogues
from sklearn_dialpref._progress import bar_options, calling_bar

from .answers import BaseAnswers
from .batch_pass import ask_in_batches
from .billing import Ledger, Usage
from .client import Call, Question, ask_all
from .completion import Completion
from .models import OpenAIModel
from .panel import Panel

__all__ = ["Record", "label_rows"]

SHOW_EVERY = 50  # answers, for calls and cost beside the progress bar


Done = Callable[[Any], NDArray[np.bool_]]


@dataclass
class Record:
    """What a pass has used and missed so far; also of one that was cut short.

    Attributes
    ----------
    usage : Usage
    failures : list of dict
        Questions without an answer, and why.
    token_ratio : dict of float
        By model, tokens billed for each token counted.
    lost : int
        Stored answers that were damaged, and were asked for again.
    answered : set of str
        Models that have answered a call.
    """

    usage: Usage = field(default_factory=Usage)
    failures: list[dict[str, Any]] = field(default_factory=list)
    token_ratio: dict[str, float] = field(default_factory=dict)
    lost: int = 0
    answered: set[str] = field(default_factory=set)


def label_rows(
    panel: Panel,
    dialogues: Dialogues,
    rows: NDArray[np.int64],
    record: Record,
    answers: BaseAnswers,
    done: Done | None = None,
) -> None:
    """Ask, one model after the other, or one member after the other, and take in the answers.

    Parameters
    ----------
    panel : Panel
        Whose members are asked.
    dialogues : Dialogues
    rows : ndarray of int
        What is asked about; the other rows are context.
    record : Record
        An empty one, which is filled model by model.
    answers : BaseAnswers
        Empty ones, which are filled.
    done : callable, default=None
        Of the answers so far; which rows need no further member. None: all members are asked
        about all rows.
    """
    total = len(rows) * len(panel.members)
    shown = bar_options(verbose=panel.verbose)
    if calling_bar() is not None:  # whose bar stays; this one tells of calls that cost money
        shown["leave"] = False
    with tqdm(total=total, unit="answer", **shown) as bar:
        for number, prompts in _rounds(panel, in_turn=done is not None):
            asked = rows if done is None else rows[~done(answers)]
            _ask(panel, dialogues, asked, record, answers, bar, number, prompts)
            bar.update(len(rows) - len(asked))


def _rounds(panel: Panel, in_turn: bool) -> Iterator[tuple[int, Sequence[int] | None]]:
    """Which model is asked by which prompts; in turn, models alternate."""
    if not in_turn:
        yield from ((number, None) for number in range(len(panel.models)))
        return
    for prompt in range(len(panel.prompts)):
        for number in range(len(panel.models)):
            yield number, [prompt]


def _ask(
    panel: Panel,
    dialogues: Dialogues,
    rows: NDArray[np.int64],
    record: Record,
    answers: BaseAnswers,
    bar: Any,
    number: int,
    prompts: Sequence[int] | None,
) -> None:
    model = panel.models[number]
    ledger = Ledger(panel.limits[number], record.usage, model.name in record.answered)

    def deliver(question: Question, outcome: Completion | str) -> None:
        answers.deliver(question, outcome)
        bar.update(1)
        if panel.verbose and bar.n % SHOW_EVERY == 0:
            spent = ledger.before + ledger.usage
            bar.set_postfix(calls=spent.calls, cost=f"{spent.cost:.4f}")

    def calls() -> Iterator[Call]:
        return panel.calls(dialogues, rows, number, prompts)

    try:
        with panel.answers(number) as cache:
            if panel.mode == "batch":
                assert isinstance(model, OpenAIModel)
                show = _Expected(bar).show
                ask_in_batches(model, calls, panel.settings, ledger, cache, deliver, show)
            else:
                ask_all(model, calls(), panel.settings, ledger, cache, deliver)
    finally:
        record.usage = record.usage + ledger.usage
        record.failures = answers.failures
        record.lost += ledger.lost
        if ledger.answered:
            record.answered.add(model.name)
        if ledger.counted:
            record.token_ratio[model.name] = ledger.ratio


class _Expected:
    """Counts on a bar what a provider has answered, until it is taken in."""

    def __init__(self, bar: Any) -> None:
        self.bar, self.counted = bar, 0

    def show(self, expected: int) -> None:
        self.bar.update(expected - self.counted)
        self.bar.refresh()  # also where only time went by
        self.counted = expected
