"""How an escalating classifier answers in a stream: one utterance, beside the student's scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from .rejecting import RejectsUnknown

__all__ = ["AnswersStreams", "dataframe_library"]

Scores = NDArray[np.float64]


class AnswersStreams(RejectsUnknown):
    """Mixin for :class:`~sklearn_dialpref.serving.DialogueStream`, whose threads ask.

    Several threads may ask at once, so that each has its own copy of the teacher: an annotator
    keeps what it was last asked about.
    """

    teacher: Any
    _library: Any

    def _decide_live(self, text: str, scores: Scores, classes: NDArray[Any]) -> tuple[bool, bool]:
        """Whether the teacher is asked, and whether there is no answer at all."""
        proba = self._in_all_classes(scores[None], classes)
        asked, unknown = self._asked([text], proba, unkept_embed(self.student_))
        passed_on, is_unknown = bool(asked[0]), bool(unknown[0])
        if self.teacher is None:
            return False, passed_on or is_unknown
        return passed_on, is_unknown

    def _ask_live(
        self, turns: Sequence[tuple[str, Any]], scores: Scores, classes: NDArray[Any]
    ) -> Scores | None:
        """The combined probabilities of the last of these turns; None without an answer."""
        asking = own_state(self)
        asking.teacher = own_state(self.teacher)
        is_last = np.arange(len(turns)) == len(turns) - 1
        answer = asking._ask(dialogue_table(turns, self._library), is_last)[-1:]
        if np.isnan(answer).any():
            return None
        combined: Scores = self._combined(self._in_all_classes(scores[None], classes), answer)[0]
        return combined

    def _in_all_classes(self, proba: Any, classes: NDArray[Any]) -> Scores:
        raise NotImplementedError

    def _combined(self, proba: Scores, teacher: Scores) -> Scores:
        raise NotImplementedError


def unkept_embed(student: Any) -> Any:
    """Its ``embed``, without keeping the embeddings of live utterances where it can."""
    return partial(student._embed, keep=False) if hasattr(student, "_embed") else None


def own_state(estimator: Any) -> Any:
    """A shallow copy, of attributes as they are: a pickle leaves some of them out."""
    copied = object.__new__(type(estimator))
    copied.__dict__.update(estimator.__dict__)
    return copied


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
