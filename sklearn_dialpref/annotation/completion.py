"""What a model answered, checked before anything believes it; and why there may be no answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from numbers import Integral, Real
from typing import Any

__all__ = [
    "BadAnswer",
    "Completion",
    "EndpointError",
    "Messages",
    "NoAnswer",
    "error_in",
    "error_text",
    "read_completion",
    "redact",
]

Messages = list[dict[str, str]]

ROUNDING = 1e-3  # by which a server's float16 may put a log-probability above 0
MOST_TOKENS = 10**9  # that one answer can be billed
OUTAGES = (408, 409, 429)  # and 5xx: HTTP states that say nothing against the question
SHOWN = 200  # characters of a provider's error
# A key's last characters are what providers show of it; shorter runs occur in any text.
KEY_PART_IN_ERRORS = 4
KEY_PART_IN_ANSWERS = 8  # a code may have four characters in common with a key


class EndpointError(RuntimeError):
    """The endpoint cannot be used at all: wrong key, unknown model, no credit, nothing there.

    Examples
    --------
    >>> from sklearn_dialpref import LLMAnnotator
    >>> from sklearn_dialpref.annotation import EndpointError
    >>> def model(messages, **options):
    ...     raise ConnectionError("no network")
    >>> annotator = LLMAnnotator(["complaint", "thanks"], model).fit(["Thank you!"] * 9)
    >>> try:
    ...     annotator.predict(["Thank you!"] * 9)
    ... except EndpointError as error:
    ...     print(str(error)[:21])
    the first 3 questions
    """


class BadAnswer(ValueError):
    """What came is not a completion; the message says what is wrong with it."""


class NoAnswer(Exception):
    """A question has no answer; others may have one.

    Parameters
    ----------
    reason : str
    outage : bool, default=False
        Whether the endpoint is at fault, and not the question.
    broken : bool, default=False
        Whether something came and was billed, but is of no use: worth asking again.
    tokens_in, tokens_out : int, default=0
        As billed, where that is known.
    """

    def __init__(
        self,
        reason: str,
        *,
        outage: bool = False,
        broken: bool = False,
        tokens_in: int = 0,
        tokens_out: int = 0,
    ) -> None:
        super().__init__(reason)
        self.outage, self.broken = outage, broken
        self.tokens_in, self.tokens_out = tokens_in, tokens_out


@dataclass(frozen=True)
class Completion:
    """What a model answered.

    Attributes
    ----------
    texts : list of str
        One per sample.
    logprobs : dict of str to float, or None
        Natural logarithm of the probability of the likeliest first tokens, at most 0.
    finish_reason : str
        As in the OpenAI API: "stop", "length", "content_filter".
    tokens_in, tokens_out : int
        As billed, at least 0.
    tokens_cached : int
        How many of ``tokens_in`` the endpoint had in its cache of prompts.
    tokens : list of (str, dict of str to float), or None
        Each token of the answer, and the logarithms of the probabilities of the likeliest in its
        place. Needed where an answer holds several codes; not stored.

    Raises
    ------
    ValueError
        If a value is not as described, or a text cannot be written as UTF-8.

    Examples
    --------
    A model of your own may return one in place of a str, so that its tokens are counted:

    >>> from sklearn_dialpref import LLMAnnotator
    >>> from sklearn_dialpref.annotation import Completion
    >>> def model(messages, **options):
    ...     return Completion(["A"], tokens_in=40, tokens_out=1)
    >>> annotator = LLMAnnotator(["complaint", "thanks"], model).fit(["Thank you!"])
    >>> annotator.predict_proba(["Thank you!"]).shape, annotator.usage_["tokens_in"]
    ((1, 2), 320)
    """

    texts: list[str]
    logprobs: dict[str, float] | None = None
    finish_reason: str = "stop"
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    tokens: list[tuple[str, dict[str, float]]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.texts, list | tuple):
            raise BadAnswer(f"texts must be a list of str, got {_described(self.texts)}")
        for text in self.texts:
            _check_text("a text of the answer", text)
        _check_text("finish_reason", self.finish_reason)
        values = {
            "texts": list(self.texts),
            "logprobs": None if self.logprobs is None else _checked_logprobs(self.logprobs),
            "tokens_in": _checked_tokens("tokens_in", self.tokens_in),
            "tokens_out": _checked_tokens("tokens_out", self.tokens_out),
            "tokens_cached": _checked_tokens("tokens_cached", self.tokens_cached),
            "tokens": None if self.tokens is None else _checked_places(self.tokens),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """What is stored of it.

        Returns
        -------
        dict
            Its values by name, all but ``tokens``.
        """
        content = {name: value for name, value in vars(self).items() if name != "tokens"}
        if not self.tokens_cached:  # so that earlier versions read it, too
            del content["tokens_cached"]
        return content

    @classmethod
    def from_dict(cls, content: Any) -> Completion | None:
        """The completion that was stored.

        Parameters
        ----------
        content : dict
            What :meth:`to_dict` gave.

        Returns
        -------
        Completion or None
            None if the content is not that of a completion.
        """
        try:
            return cls(**content)
        except (TypeError, BadAnswer):  # not a mapping, or other names
            return None

    @property
    def filtered(self) -> bool:
        """Whether a content filter kept the answer back."""
        return self.finish_reason == "content_filter"


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise BadAnswer(f"{name} must be str, got {_described(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadAnswer(f"{name} has a lone surrogate: {_described(value)}") from None


def _checked_logprobs(logprobs: Any) -> dict[str, float]:
    if not isinstance(logprobs, Mapping):
        raise BadAnswer(f"logprobs must be a dict of str to float, got {_described(logprobs)}")
    for token in logprobs:
        if not isinstance(token, str):
            raise BadAnswer(f"a token must be str, got {_described(token)}")
    _check_text("a token", "".join(logprobs))
    values = logprobs.values()
    # at once what nearly all answers are, as a pass may read 100,000 of them from the cache
    plain = all(type(value) is float for value in values) and math.isfinite(sum(values))
    if plain and max(values, default=0.0) <= 0:
        return dict(logprobs)
    checked = {}
    for token, value in logprobs.items():
        number = value if type(value) is float else _as_float(value)
        if not -math.inf < number <= ROUNDING:
            raise BadAnswer(
                f"a log-probability must be finite and at most 0, got {_described(value)}"
            )
        checked[token] = min(number, 0.0)
    return checked


def _checked_places(tokens: Any) -> list[tuple[str, dict[str, float]]]:
    if not isinstance(tokens, list | tuple):
        raise BadAnswer(f"tokens must be a list of pairs, got {_described(tokens)}")
    checked = []
    for entry in tokens:
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            raise BadAnswer(f"tokens must hold pairs of str and dict, got {_described(entry)}")
        token, likeliest = entry
        _check_text("a token", token)
        checked.append((token, _checked_logprobs(likeliest)))
    return checked


def _as_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise BadAnswer(f"a log-probability must be a number, got {_described(value)}")
    try:
        return float(value)
    except OverflowError:  # an int of more than 308 digits
        return math.nan


def _checked_tokens(name: str, value: Any) -> int:
    whole = isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not 0 <= value <= MOST_TOKENS:
        raise BadAnswer(f"{name} must be a whole number of tokens, got {_described(value)}")
    return int(value)


def _described(value: Any) -> str:
    """A value in a few characters that can always be written."""
    try:
        return ascii(value)[:60]
    except (ValueError, RecursionError):  # an int of thousands of digits, a deep list
        return type(value).__name__


# -- bodies of HTTP answers -----------------------------------------------------------------


def read_completion(body: Any, key: str | None = None) -> Completion:
    """The completion in the body of an answer, without the key, if the answer repeats it.

    Raises
    ------
    BadAnswer
        If the body is not a whole completion, or a value in it cannot be meant.
    """
    try:
        choices = body["choices"]
        content = (choices[0].get("logprobs") or {}).get("content") or []
        places = [(entry["token"], _likeliest(entry)) for entry in content]
        logprobs = places[0][1] if places else None
        usage = body.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        contents = [choice["message"].get("content") for choice in choices]
        finish_reason = choices[0].get("finish_reason") or "stop"
        tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise BadAnswer(
            f"an answer that is not a whole completion ({type(error).__name__})"
        ) from None
    texts = ["" if text is None else text for text in contents]
    tokens_in, tokens_out, tokens_cached = (0 if n is None else n for n in (*tokens, cached))
    several = places if len(places) > 1 else None
    answer = Completion(
        texts, logprobs, finish_reason, tokens_in, tokens_out, tokens_cached, several
    )
    return answer if key is None else _without_key(answer, key)


def _likeliest(entry: Any) -> dict[str, float]:
    return {one["token"]: one["logprob"] for one in entry.get("top_logprobs") or [entry]}


def _without_key(answer: Completion, key: str) -> Completion:
    """The answer as it may be stored and shown, as a hostile endpoint can send the key back."""

    def clean(text: str) -> str:
        return redact(text, key, KEY_PART_IN_ANSWERS)

    def clean_all(logprobs: dict[str, float]) -> dict[str, float]:
        return {clean(token): value for token, value in logprobs.items()}

    return replace(
        answer,
        texts=[clean(text) for text in answer.texts],
        logprobs=None if answer.logprobs is None else clean_all(answer.logprobs),
        finish_reason=clean(answer.finish_reason),
        tokens=answer.tokens and [(clean(token), clean_all(top)) for token, top in answer.tokens],
    )


def error_in(body: Any) -> Any:
    """The provider's error in a body that came as if it were an answer; None without one."""
    if not isinstance(body, dict) or body.get("choices"):
        return None
    return body.get("error") or (body if body.get("message") or body.get("detail") else None)


def error_text(error: Any, key: str | None) -> tuple[str, str]:
    """Code and message of a provider's error, on one line and without any part of the key."""
    if not isinstance(error, Mapping):
        error = {"message": error}
    code = _plain(error.get("code"))
    message = _plain(error.get("message")) or _plain(error.get("detail")) or code
    message = " ".join(message.encode("utf-8", "replace").decode().split())
    if key is not None:  # before it is cut, which could leave half a key
        message = redact(message, key, KEY_PART_IN_ERRORS)
    return code, message[:SHOWN] or "no reason given"


def _plain(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        return ""


def redact(text: str, key: str, least: int) -> str:
    """The text with ``***`` for each run of at least ``least`` characters that the key has too.

    Examples
    --------
    >>> from sklearn_dialpref.annotation.completion import redact
    >>> redact("Incorrect API key: sk-Se****t123.", "sk-Secret123", 4)
    'Incorrect API key: **********.'
    """
    least = min(least, len(key))
    if len(text) < least:
        return text
    lowered, key = text.lower(), key.lower()
    if len(lowered) != len(text):  # some capitals become two letters
        lowered = text
    parts = {key[start : start + least] for start in range(len(key) - least + 1)}
    hidden = [False] * len(text)
    for start in range(len(text) - least + 1):
        if lowered[start : start + least] in parts:
            hidden[start : start + least] = [True] * least
    runs = groupby(zip(text, hidden, strict=True), key=lambda pair: pair[1])
    return "".join(
        "***" if covered else "".join(letter for letter, _ in run) for covered, run in runs
    )
