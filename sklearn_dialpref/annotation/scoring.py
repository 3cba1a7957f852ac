"""The ways in which answers are asked for and read as scores; never a label that was not given."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .completion import Completion
from .forms import LIST_MARKS, NONE, AnyCodes, Asked, Form, code_logprobs

__all__ = ["SCORINGS", "OffList", "Scoring", "label_scores", "off_list"]

LEAST_MASS = 0.01  # of the codes together, below which the answer counts as something else
TOP_LOGPROBS = 20  # the most that the OpenAI API gives

Codes = tuple[str, ...]
Scores = NDArray[np.float64]


class OffList(ValueError):
    """The answer is not one of the codes; the message says what it was."""


def off_list(answer: Completion) -> OffList:
    """The error that shows the answer."""
    shown = repr(answer.texts[0][:60]) if answer.texts else "(nothing)"
    return OffList(f"off-list answer {shown}")


# -- from answers to scores -----------------------------------------------------------------


def _code_scores(answer: Completion, codes: Codes) -> Scores:
    """Probabilities of the codes, or their shares of the answers, divided by their sum.

    The log-probabilities count where the answer has them, whatever was asked for.
    """
    if answer.logprobs is None:
        answered = [_code(text, codes) for text in answer.texts]
        mass, least = np.array([answered.count(code) for code in codes], dtype=float), 1.0
    else:
        mass, least = _probabilities(code_logprobs(answer.logprobs, codes), codes), LEAST_MASS
    if mass.sum() < least:
        raise off_list(answer)
    return mass / mass.sum()


def _code(text: str, codes: Codes) -> str | None:
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


def _probabilities(logprobs: Mapping[str, float], codes: Codes) -> Scores:
    return np.array([math.exp(logprobs.get(code, -math.inf)) for code in codes])


def _several_scores(answer: Completion, codes: Codes) -> Scores:
    """Probability of each code, or its share of the answers that can be read."""
    answered = [found for text in answer.texts if (found := _codes(text, codes)) is not None]
    if not answered:
        raise off_list(answer)
    if answer.logprobs is not None:
        known = code_logprobs(answer.logprobs, codes)
        # a code that was listed and is not among them was no token by itself
        if answered[0] <= known.keys():
            return _probabilities(known, codes)
    return np.mean([[code in found for code in codes] for found in answered], axis=0)


def _codes(text: str, codes: Codes) -> set[str] | None:
    """The codes that a text lists, in JSON or between spaces, commas and semicolons."""
    stripped = text.strip()
    listed: list[Any]
    if stripped.startswith("{"):
        try:
            labels = json.loads(stripped).get("labels")
        except (ValueError, RecursionError):
            return None
        listed = labels if isinstance(labels, list) else [None]
    else:
        listed = re.split(r"[\s,;]+", stripped.strip(LIST_MARKS + " "))
        listed = [] if [word.lower() for word in listed] == [NONE] else listed or [None]
    known = all(isinstance(code, str) and code in codes for code in listed)
    return set(listed) if known else None


# -- the ways -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scoring:
    """A way to ask for answers and to read them.

    Attributes
    ----------
    most_tokens : callable
        Of the codes; the most tokens that an answer of one code may take.
    typical_tokens : int
        About how many such an answer takes, to estimate the cost.
    options : callable, default=no options
        Of the codes; entries that a request has besides its temperature and ``max_tokens``.
    read : callable, default=the probabilities or shares of the codes
        Of a :class:`Completion` that no content filter kept back, and the codes; returns their
        scores, which sum to 1, or raises :class:`OffList`. Not used where an answer holds any
        number of codes.
    as_json : bool, default=False
        Whether the answer is bound by a JSON schema.
    sampled : bool, default=False
        Whether ``n_samples`` answers are asked for at their temperature, and not one at 0.
    logprobs : bool, default=False
        Whether log-probabilities of the first token are asked for, which a code must then be.
    fallback : Scoring, default=None
        What asks an endpoint that gives no log-probabilities. None: that is an error.
    """

    most_tokens: Callable[[Codes], int]
    typical_tokens: int
    options: Callable[[Codes], dict[str, Any]] = lambda codes: {}
    read: Callable[[Completion, Codes], Scores] = _code_scores
    as_json: bool = False
    sampled: bool = False
    logprobs: bool = False
    fallback: Scoring | None = None

    @property
    def ways(self) -> list[Scoring]:
        """The way itself, and what it falls back on."""
        return [self] if self.fallback is None else [self, self.fallback]

    @property
    def needs_logprobs(self) -> bool:
        """Whether an answer without log-probabilities is none."""
        return self.logprobs and self.fallback is None

    def n_answers(self, n_samples: int) -> int:
        """How many answers a question takes."""
        return n_samples if self.sampled else 1

    def answer_tokens(self, asked: Asked) -> int:
        """The most tokens that one answer may take."""
        if asked.plain:
            return self.most_tokens(asked.form.codes)
        return asked.most_tokens(self.as_json)

    def usual_tokens(self, asked: Asked) -> int:
        """About how many tokens one answer takes."""
        return self.typical_tokens if asked.plain else asked.typical_tokens(self.as_json)

    def request(self, asked: Asked, temperature: float) -> dict[str, Any]:
        """Entries of a request; ``temperature`` is that of samples."""
        return {
            "temperature": temperature if self.sampled else 0,
            "max_tokens": self.answer_tokens(asked),
            **self.options(asked.form.codes),
            **(asked.response_format() if self.as_json else {}),
        }


LOGPROBS = Scoring(
    most_tokens=lambda codes: 1,
    typical_tokens=1,
    options=lambda codes: {"logprobs": True, "top_logprobs": TOP_LOGPROBS},
    logprobs=True,
)
SAMPLES = Scoring(
    most_tokens=lambda codes: 4 + max(map(len, codes)), typical_tokens=2, sampled=True
)
SCHEMA = Scoring(
    most_tokens=lambda codes: 16 + 2 * max(map(len, codes)), typical_tokens=12, as_json=True
)

SCORINGS = {
    "auto": replace(LOGPROBS, fallback=SAMPLES),
    "logprobs": LOGPROBS,
    "samples": SAMPLES,
    "schema": SCHEMA,
}
"""The ways by name: what ``scoring`` of an annotator may be."""


def label_scores(answer: Completion, form: Form | Codes, scoring: str = "auto") -> Scores:
    """Scores of the codes: summing to 1, or each in [0, 1] where any number of codes may apply.

    Parameters
    ----------
    answer : Completion
        About one utterance.
    form : Form or tuple of str
        What was asked for; a tuple stands for one of these codes.
    scoring : str, default="auto"
        The way in which it was asked for, a name in :data:`SCORINGS`.

    Returns
    -------
    ndarray of shape (len(codes),)

    Raises
    ------
    OffList
        If no answer is a code, or the model refused.

    Examples
    --------
    >>> from sklearn_dialpref.annotation.completion import Completion
    >>> from sklearn_dialpref.annotation.forms import AnyCodes
    >>> from sklearn_dialpref.annotation.scoring import label_scores
    >>> label_scores(Completion(["A"], {"A": -0.7, " B": -1.4, "The": -2.0}), ("A", "B")).round(2)
    array([0.67, 0.33])
    >>> label_scores(Completion(["A", " b.", "A"]), ("A", "b")).round(2)
    array([0.67, 0.33])
    >>> label_scores(Completion(["A C;", "none", "C;"]), AnyCodes(("A", "B", "C"))).round(2)
    array([0.33, 0.  , 0.67])
    """
    if answer.filtered:
        raise OffList("content filter")
    if isinstance(form, AnyCodes):
        return _several_scores(answer, form.codes)
    codes = form if isinstance(form, tuple) else form.codes
    return SCORINGS[scoring].read(answer, codes)
