"""One pass: all members of a panel are asked about some rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from sklearn_dialpref._dialogues.validation import Dialogues

from .answers import Answers
from .billing import Ledger, Usage
from .client import Question, ask_all
from .completion import Completion
from .panel import Panel

__all__ = ["Record", "label_rows"]

SHOW_EVERY = 50  # answers, for calls and cost beside the progress bar


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
    """

    usage: Usage = field(default_factory=Usage)
    failures: list[dict[str, Any]] = field(default_factory=list)
    token_ratio: dict[str, float] = field(default_factory=dict)
    lost: int = 0


def label_rows(
    panel: Panel, dialogues: Dialogues, rows: NDArray[np.int64], record: Record
) -> NDArray[np.float64]:
    """Ask, one model after the other, and take in the answers.

    Parameters
    ----------
    panel : Panel
        Whose members are asked.
    dialogues : Dialogues
    rows : ndarray of int
        What is asked about; the other rows are context.
    record : Record
        An empty one, which is filled model by model.

    Returns
    -------
    ndarray of shape (len(rows), n_members, n_classes)
        NaN where a member gave no answer.
    """
    shown = [prompt.classes for _ in panel.models for prompt in panel.prompts]
    answers = Answers(rows, panel.members, panel.classes.tolist(), shown, panel.settings.scoring)
    total = len(rows) * len(panel.members)
    with tqdm(total=total, unit="answer", disable=not panel.verbose) as bar:
        for number, model in enumerate(panel.models):
            ledger = Ledger(panel.limits[number], before=record.usage)

            def deliver(
                question: Question, outcome: Completion | str, ledger: Ledger = ledger
            ) -> None:
                answers.deliver(question, outcome)
                bar.update(1)
                if panel.verbose and bar.n % SHOW_EVERY == 0:
                    spent = ledger.before + ledger.usage
                    bar.set_postfix(calls=spent.calls, cost=f"{spent.cost:.4f}")

            asked = panel.questions(dialogues, rows, number)
            try:
                with panel.answers(number) as cache:
                    ask_all(model, asked, panel.settings, ledger, cache, deliver)
            finally:
                record.usage = record.usage + ledger.usage
                record.failures = answers.failures
                record.lost += ledger.lost
                if ledger.counted:
                    record.token_ratio[model.name] = ledger.ratio
    return answers.scores
