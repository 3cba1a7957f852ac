"""From what a model answered to scores of the labels; never a label that it did not give."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .client import Question
from .completion import Completion

__all__ = ["Answers", "OffList", "label_scores"]

LEAST_MASS = 0.01  # of the codes together, below which the answer counts as something else


class OffList(ValueError):
    """The answer is not one of the codes; the message says what it was."""


def label_scores(answer: Completion, codes: tuple[str, ...]) -> NDArray[np.float64]:
    """Scores of the codes, summing to 1.

    By log-probabilities: the probabilities of all tokens that are a code, whatever spaces are
    around it, divided by their sum. Otherwise: the share of the answers that are each code.

    Parameters
    ----------
    answer : Completion
    codes : tuple of str

    Returns
    -------
    ndarray of shape (len(codes),)

    Raises
    ------
    OffList
        If no answer is a code, or the model refused.

    Examples
    --------
    >>> from sklearn_dialpref.annotation.answers import label_scores
    >>> from sklearn_dialpref.annotation.completion import Completion
    >>> label_scores(Completion(["A"], {"A": -0.7, " B": -1.4, "The": -2.0}), ("A", "B")).round(2)
    array([0.67, 0.33])
    >>> label_scores(Completion(["A", " b.", "A"]), ("A", "b")).round(2)
    array([0.67, 0.33])
    """
    if answer.filtered:
        raise OffList("content filter")
    if answer.logprobs is not None:
        mass = np.zeros(len(codes))
        positions = {code: index for index, code in enumerate(codes)}
        for token, logprob in answer.logprobs.items():
            index = positions.get(token.strip(" \n\t▁Ġ"))
            if index is not None:
                mass[index] += math.exp(logprob)
        if mass.sum() >= LEAST_MASS:
            return mass / mass.sum()
        raise OffList(f"off-list answer {_shown(answer.texts)}")
    answered = [_code(text, codes) for text in answer.texts]
    counts = np.array([answered.count(code) for code in codes], dtype=float)
    if not counts.sum():
        raise OffList(f"off-list answer {_shown(answer.texts)}")
    return counts / counts.sum()


def _code(text: str, codes: tuple[str, ...]) -> str | None:
    """The code that a text is: alone, in quotes or brackets, before a colon, or in JSON."""
    stripped = text.strip()
    if stripped.startswith("{"):
        try:
            label = json.loads(stripped).get("label")
        except (ValueError, RecursionError):  # not JSON, a number of thousands of digits, nested
            return None
        return label if label in codes else None
    match = re.match(r"[\W_]*([^\W_]+)[\W_]*$|[\W_]*([^\W_]+)\s*[:.)]", stripped)
    word = (match.group(1) or match.group(2)) if match else stripped
    return word if word in codes else stripped if stripped in codes else None


def _shown(texts: list[str]) -> str:
    return repr(texts[0][:60]) if texts else "(nothing)"


class Answers:
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
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        members: Sequence[tuple[str, str]],
        classes: Sequence[Any],
        shown: Sequence[Sequence[Any]],
    ) -> None:
        self.members = members
        self.scores = np.full((len(rows), len(members), len(classes)), np.nan)
        self._failures: list[dict[str, Any]] = []
        self._row_index = {row: index for index, row in enumerate(rows.tolist())}
        column = {label: index for index, label in enumerate(classes)}
        self._columns = [np.array([column[label] for label in order]) for order in shown]

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
            scores = label_scores(outcome, question.codes)
        except OffList as error:
            model, prompt = self.members[question.member]
            self._failures.append(
                {"row": question.row, "model": model, "prompt": prompt, "reason": str(error)}
            )
            return
        columns = self._columns[question.member]
        self.scores[self._row_index[question.row], question.member, columns] = scores
