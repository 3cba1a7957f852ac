"""The scores and failures of a pass, as its answers arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .client import Question
from .completion import Completion
from .scoring import OffList, label_scores

__all__ = ["Answers", "BaseAnswers"]


class BaseAnswers:
    """What a pass has missed so far, and why.

    Those who inherit take in the answers.

    Parameters
    ----------
    members : sequence of (model, prompt id)
    """

    def __init__(self, members: Sequence[tuple[str, str]]) -> None:
        self.members = members
        self._failures: list[dict[str, Any]] = []

    @property
    def failures(self) -> list[dict[str, Any]]:
        """In the order of rows, models and prompts, however the answers came in."""
        order = {member: index for index, member in enumerate(self.members)}
        return sorted(self._failures, key=lambda f: (f["row"], order[f["model"], f["prompt"]]))

    def deliver(self, question: Question, outcome: Completion | str) -> None:
        """Take in an answer, or the reason why there is none."""
        try:
            if isinstance(outcome, str):
                raise OffList(outcome)
            self._take_in(question, outcome)
        except OffList as error:
            model, prompt = self.members[question.member]
            self._failures.append(
                {"row": question.row, "model": model, "prompt": prompt, "reason": str(error)}
            )

    def _take_in(self, question: Question, answer: Completion) -> None:
        """Keep an answer, or raise an OffList."""
        raise NotImplementedError


class Answers(BaseAnswers):
    """The scores of a pass by row and member, and what failed.

    Parameters
    ----------
    rows : ndarray of int
        That are asked about.
    members : sequence of (model, prompt id)
    classes : sequence
        Whose order the scores have.
    shown : sequence of sequence
        The classes of each member in the order of its codes.
    scoring : str
        The way in which all are asked.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        members: Sequence[tuple[str, str]],
        classes: Sequence[Any],
        shown: Sequence[Sequence[Any]],
        scoring: str,
    ) -> None:
        super().__init__(members)
        self.scoring = scoring
        self.scores = np.full((len(rows), len(members), len(classes)), np.nan)
        self._row_index = {row: index for index, row in enumerate(rows.tolist())}
        column = {label: index for index, label in enumerate(classes)}
        self._columns = [np.array([column[label] for label in order]) for order in shown]

    def _take_in(self, question: Question, answer: Completion) -> None:
        scores = label_scores(answer, question.form, self.scoring)
        columns = self._columns[question.member]
        self.scores[self._row_index[question.row], question.member, columns] = scores
