"""How an escalating classifier answers in a stream: one utterance, beside the student's scores."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref.inspection.labelled_rows import in_classes

from .asking import ask_teacher
from .combining import with_answers
from .rejecting import Rejection
from .rules import Rule

__all__ = ["LiveAnswers", "dataframe_library"]

Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LiveAnswers:
    """What :class:`~sklearn_dialpref.serving.DialogueStream` wants of an escalating classifier.

    Attributes
    ----------
    classes : ndarray of shape (K,)
    student : fitted classifier
    teacher : fitted classifier or None
    rule : Rule
    rejection : Rejection or None
    library : object
        The dataframe library of the table that ``fit`` was given; None for none.
    """

    classes: NDArray[Any]
    student: Any
    teacher: Any
    rule: Rule
    rejection: Rejection | None
    library: Any

    def decide(self, text: str, scores: Scores, classes: NDArray[Any]) -> tuple[bool, bool]:
        """Whether the teacher is asked, and whether there is no answer at all.

        Parameters
        ----------
        text : str
        scores : ndarray of shape (L,)
            The student's probabilities.
        classes : ndarray of shape (L,)
            What they belong to.

        Returns
        -------
        asks, is_silent : bool
        """
        proba = in_classes(scores[None], classes, self.classes)
        if self.rejection is not None:
            embed = unkept_embed(self.student)
            if self.rejection.p_values(embed, [text], proba)[0] <= self.rejection.threshold:
                return False, True
        passed_on = bool(self.rule.escalates(proba)[0])
        has_teacher = self.teacher is not None
        return passed_on and has_teacher, passed_on and not has_teacher

    def ask(
        self, turns: Sequence[tuple[str, Any]], scores: Scores, classes: NDArray[Any]
    ) -> Scores | None:
        """Ask the teacher; several threads may do so at once.

        Parameters
        ----------
        turns : sequence of (str, object)
            Utterances of the dialogue with their speakers; the last is asked about.
        scores, classes
            As for :meth:`decide`.

        Returns
        -------
        ndarray of shape (K,) or None
            Combined probabilities; None if the teacher gives no answer.
        """
        assert self.rule.combination is not None
        is_last = np.arange(len(turns)) == len(turns) - 1
        X = dialogue_table(turns, self.library)
        answer = ask_teacher(own_state(self.teacher), X, is_last)[-1:]
        if np.isnan(answer).any():
            return None
        proba = in_classes(scores[None], classes, self.classes)
        combined: Scores = with_answers(proba, answer, self.rule.combination)[0]
        return combined


def own_state(teacher: Any) -> Any:
    """A shallow copy: an annotator keeps what it was last asked about.

    Of attributes as they are, since a pickle leaves some of them out.
    """
    copied = object.__new__(type(teacher))
    copied.__dict__.update(teacher.__dict__)
    return copied


def unkept_embed(student: Any) -> Any:
    """Its ``embed``, without keeping the embeddings of live utterances where it can."""
    keeps = "keep" in inspect.signature(student.embed).parameters
    return partial(student.embed, keep=False) if keeps else student.embed


def dataframe_library(X: Any) -> Any:
    """That of a table; None of an array or list."""
    native = nw.from_native(X, pass_through=True)
    return native.implementation if isinstance(native, nw.DataFrame) else None


def dialogue_table(turns: Sequence[tuple[str, Any]], library: Any) -> Any:
    """The turns of a dialogue in the form that ``fit`` was given."""
    if library is None:
        return np.array([["stream", text] for text, _ in turns], dtype=object)
    columns: dict[str, list[Any]] = {
        "dialogue_id": ["stream"] * len(turns),
        "turn": list(range(len(turns))),
        "text": [text for text, _ in turns],
    }
    if all(speaker is not None for _, speaker in turns):
        columns["speaker"] = [speaker for _, speaker in turns]
    return nw.from_dict(columns, backend=library).to_native()
