"""One pass: all members of an annotator are asked about some rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from sklearn_dialpref._dialogues.validation import Dialogues

from .answers import Answers
from .billing import Ledger, Usage
from .client import Question, ask_all
from .models import Completion

if TYPE_CHECKING:
    from .annotator import LLMAnnotator

__all__ = ["label_rows"]

SHOW_EVERY = 50  # answers, for calls and cost beside the progress bar


def label_rows(
    annotator: LLMAnnotator, dialogues: Dialogues, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Ask, one model after the other, and take in the answers.

    Sets ``failures_`` and ``usage_`` of the annotator, also where the pass is cut short.

    Parameters
    ----------
    annotator : LLMAnnotator
        Whose members are asked.
    dialogues : Dialogues
    rows : ndarray of int
        What is asked about; the other rows are context.

    Returns
    -------
    ndarray of shape (len(rows), n_members, n_classes)
        NaN where a member gave no answer.
    """
    models = annotator._models()
    shown = [prompt.classes for _ in models for prompt in annotator.prompts_]
    answers = Answers(rows, annotator.members_, annotator.classes_.tolist(), shown)
    usage = Usage()
    total = len(rows) * len(annotator.members_)
    with tqdm(total=total, unit="answer", disable=not annotator.verbose) as bar:
        for number, model in enumerate(models):
            ledger = Ledger(annotator._limits(model), before=usage)

            def deliver(
                question: Question, outcome: Completion | str, ledger: Ledger = ledger
            ) -> None:
                answers.deliver(question, outcome)
                bar.update(1)
                if annotator.verbose and bar.n % SHOW_EVERY == 0:
                    spent = ledger.before + ledger.usage
                    bar.set_postfix(calls=spent.calls, cost=f"{spent.cost:.4f}")

            asked = annotator._questions(dialogues, rows, model, number)
            try:
                with annotator._answers(model) as cache:
                    ask_all(model, asked, annotator._settings(), ledger, cache, deliver)
            finally:
                usage = usage + ledger.usage
                annotator.usage_, annotator.failures_ = asdict(usage), answers.failures
                if ledger.counted:
                    annotator._ratio[model.name] = ledger.ratio
    return answers.scores
