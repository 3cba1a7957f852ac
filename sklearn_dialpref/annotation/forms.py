"""What a language model is to answer: one code, any number of codes, for one turn or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = [
    "END",
    "LIST_MARKS",
    "NONE",
    "AnyCodes",
    "Asked",
    "Form",
    "OneCode",
    "Tokens",
    "code_logprobs",
]

Tokens = Sequence[tuple[str, dict[str, float]]]
NONE = "none"  # what is answered where no label applies
END = ";"  # after the last code, so that the place shows what else might have come
LIST_MARKS = ".`*\"'[]();,"  # that may stand around a list of codes
SPACE = " \n\t▁Ġ"  # around a token, as tokenizers write it
SCHEMA_NAME = "answer"
LEAST_PROBABILITY = 1e-12


class Form(Protocol):
    """What the answer about one utterance is."""

    @property
    def name(self) -> str:
        """Name of the answer in a JSON object."""

    @property
    def codes(self) -> tuple[str, ...]:
        """That it may hold."""

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the answer in that object."""

    @property
    def text_tokens(self) -> int:
        """The most tokens that it may take as text."""

    @property
    def json_tokens(self) -> int:
        """The most tokens that it may take as JSON."""

    @property
    def typical_text(self) -> int:
        """About how many it takes as text."""

    @property
    def typical_json(self) -> int:
        """About how many it takes as JSON."""

    def logprobs(self, tokens: Tokens) -> dict[str, float] | None:
        """Log-probabilities of the codes, from the tokens of an answer; None if unknown."""


@dataclass(frozen=True)
class OneCode:
    """The code of the label that fits best."""

    codes: tuple[str, ...]
    name = "label"
    typical_text = 2
    typical_json = 12

    @property
    def schema(self) -> dict[str, Any]:
        """One of the codes."""
        return {"type": "string", "enum": list(self.codes)}

    @property
    def text_tokens(self) -> int:
        """For a code and the marks around it."""
        return 4 + max(map(len, self.codes))

    @property
    def json_tokens(self) -> int:
        """For an object that holds a code."""
        return 16 + 2 * max(map(len, self.codes))

    def logprobs(self, tokens: Tokens) -> dict[str, float] | None:
        """Of the first word, if it is a code and one token."""
        words = [token.strip(SPACE) for token, _ in tokens]
        for index, word in enumerate(words):
            if not any(map(str.isalnum, word)):
                continue
            more = index + 1 < len(tokens) and tokens[index + 1][0][:1].isalnum()
            whole = word in self.codes and not more
            return code_logprobs(tokens[index][1], self.codes) if whole else None
        return None


@dataclass(frozen=True)
class AnyCodes:
    """The codes of all labels that apply, or ``none``."""

    codes: tuple[str, ...]
    name = "labels"

    @property
    def schema(self) -> dict[str, Any]:
        """A list of codes."""
        return {"type": "array", "items": {"type": "string", "enum": list(self.codes)}}

    @property
    def text_tokens(self) -> int:
        """For all of the codes."""
        return 8 + sum(2 + len(code) for code in self.codes)

    @property
    def json_tokens(self) -> int:
        """For all of the codes, in quotes."""
        return 16 + sum(4 + len(code) for code in self.codes)

    @property
    def typical_text(self) -> int:
        """For two codes."""
        return 4

    @property
    def typical_json(self) -> int:
        """For two codes."""
        return 14

    def logprobs(self, tokens: Tokens) -> dict[str, float] | None:
        r"""Of each code being among those answered.

        A code is left out only if it is chosen in none of the places where a code, ``none`` or
        the end stands: its probability is :math:`1 - \prod_t (1 - p_t)`, with its probability
        :math:`p_t` in the place *t* after the codes that the answer has before it.
        """
        if not tokens:
            return None
        left_out = dict.fromkeys(self.codes, 1.0)
        for index, (token, likeliest) in enumerate(tokens):
            if index == 0 or token.strip(SPACE) in (*self.codes, END):
                for code, logprob in code_logprobs(likeliest, self.codes).items():
                    left_out[code] *= 1 - math.exp(logprob)
        chosen = {code: 1 - rest for code, rest in left_out.items()}
        return {
            code: math.log(probability)
            for code, probability in chosen.items()
            if probability > LEAST_PROBABILITY
        }


@dataclass(frozen=True)
class Asked:
    """What one call asks for.

    Attributes
    ----------
    form : Form
        Of the answer about each utterance.
    numbers : tuple of int
        Of the turns of a stretch that are asked about; empty where it is one utterance.
    """

    form: Form
    numbers: tuple[int, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether the answer is a single code about a single utterance."""
        return isinstance(self.form, OneCode) and not self.numbers

    def most_tokens(self, as_json: bool) -> int:
        """The most that the answer may take."""
        return self._tokens(self.form.json_tokens if as_json else self.form.text_tokens)

    def typical_tokens(self, as_json: bool) -> int:
        """About how many the answer takes."""
        return self._tokens(self.form.typical_json if as_json else self.form.typical_text)

    def _tokens(self, each: int) -> int:
        if not self.numbers:
            return each
        return sum(3 + len(str(number)) + each for number in self.numbers)

    def response_format(self) -> dict[str, Any]:
        """The entry of a request that binds its answer to JSON of this form."""
        name = self.form.name
        properties, definitions = {name: self.form.schema}, {}
        if self.numbers:  # the schema once, as its size is limited
            once = {"$ref": f"#/$defs/{name}"}
            properties = dict.fromkeys(map(str, self.numbers), once)
            definitions = {"$defs": {name: self.form.schema}}
            name = SCHEMA_NAME
        schema = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
            **definitions,
        }
        wrapped = {"name": name, "schema": schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": wrapped}}


def code_logprobs(likeliest: dict[str, float], codes: Sequence[str]) -> dict[str, float]:
    """Of the codes among the likeliest tokens, whatever spaces are around them.

    Examples
    --------
    >>> from sklearn_dialpref.annotation.forms import code_logprobs
    >>> code_logprobs({"A": -0.5, " B": -1.5, "The": -3.0}, ("A", "B"))
    {'A': -0.5, 'B': -1.5}
    """
    mass: dict[str, float] = {}
    for token, logprob in likeliest.items():
        code = token.strip(SPACE)
        if code in codes:
            mass[code] = mass.get(code, 0.0) + math.exp(logprob)
    # sums of rounded probabilities can be above 1
    return {code: math.log(min(value, 1.0)) for code, value in mass.items() if value > 0}
