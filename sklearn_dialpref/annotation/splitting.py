"""One completion about a stretch of a dialogue as an answer for each of its turns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from .completion import Completion
from .forms import Asked, Tokens

__all__ = ["split"]

# A line such as "3: A", "**3.** A" or "[3] = A". Text before the number makes it no answer, and
# so does a range such as "1-3: A".
MARKS = r"[ \t*_`)\].:=|>-]*"
LINE = re.compile(
    rf"^[^\w\n]*(?:turn +)?(\d{{1,6}})(?! *- *\d+ *[:=])[ \t*_`]*[)\].:=|-]{MARKS}(\S.*)$",
    re.M | re.I,
)
DECODER = json.JSONDecoder()
SPACES = re.compile(r"\s*")


@dataclass(frozen=True)
class Part:
    """What was answered about a number, and where a line's answer begins in the whole text."""

    number: int
    text: str
    start: int | None = None


def split(answer: Completion, asked: Asked) -> list[Completion | str]:
    r"""The answers about the numbers that were asked, or the reasons why there are none.

    Answers are matched by number, whatever their order. A number without a line, or with several,
    has no answer; numbers that were not asked about are left out.

    Parameters
    ----------
    answer : Completion
        Of one sample or several.
    asked : Asked

    Returns
    -------
    list of Completion or str
        One for each of ``asked.numbers``, in their order, or one if it has none. The tokens are
        shared out evenly.

    Examples
    --------
    >>> from sklearn_dialpref.annotation import Completion
    >>> from sklearn_dialpref.annotation.forms import Asked, OneCode
    >>> from sklearn_dialpref.annotation.splitting import split
    >>> first, second, third = split(
    ...     Completion(["3: A\n1: B\n3: B\n4: A"]), Asked(OneCode(("A", "B")), (1, 2, 3))
    ... )
    >>> first.texts, second, third
    (['B'], 'no answer about turn 2', 'several answers about turn 3')
    """
    if not asked.numbers:
        return [_alone(answer, asked)]
    shares = [_share(answer, len(asked.numbers), index) for index in range(len(asked.numbers))]
    if answer.filtered or not answer.texts:
        return [Completion(answer.texts, None, answer.finish_reason, *share) for share in shares]
    cut_off = answer.finish_reason == "length"
    samples = [_by_number(text, asked.form.name, cut_off) for text in answer.texts]
    starts = _token_starts(answer) if len(samples) == 1 else None
    answers: list[Completion | str] = []
    for index, number in enumerate(asked.numbers):
        parts = [sample.get(number, []) for sample in samples]
        texts = [part[0].text for part in parts if len(part) == 1]
        if not texts:
            how = "several answers" if any(parts) else "no answer"
            answers.append(f"{how} about turn {number}")
            continue
        logprobs = None
        if starts is not None and answer.tokens is not None:
            logprobs = asked.form.logprobs(_tokens_of(parts[0][0], answer.tokens, starts))
        answers.append(Completion(texts, logprobs, "stop", *shares[index]))
    return answers


def _alone(answer: Completion, asked: Asked) -> Completion:
    if asked.plain or answer.tokens is None:
        return answer
    logprobs = None if len(answer.texts) != 1 else asked.form.logprobs(answer.tokens)
    return Completion(answer.texts, logprobs, answer.finish_reason, *_billed(answer))


def _billed(answer: Completion) -> tuple[int, int, int]:
    return answer.tokens_in, answer.tokens_out, answer.tokens_cached


def _share(answer: Completion, n_shares: int, index: int) -> tuple[int, int, int]:
    """Equal shares but for a remainder of one token each for the first."""
    new, out, cached = (n // n_shares + (index < n % n_shares) for n in _billed(answer))
    return new, out, cached


# -- one sample -----------------------------------------------------------------------------


def _by_number(text: str, name: str, cut_off: bool) -> dict[int, list[Part]]:
    """All answers of a sample, by their number: of a JSON object, or of lines.

    Of lines without the last, if it may be cut off.
    """
    start = text.find("{")
    head = text[:start].strip().strip("`").strip()
    as_json = start >= 0 and head in ("", "json")
    lines = text[: text.rfind("\n") + 1] if cut_off else text
    parts: dict[int, list[Part]] = {}
    for part in _entries(text, start + 1, name) if as_json else _lines(lines):
        parts.setdefault(part.number, []).append(part)
    return parts


def _lines(text: str) -> Iterator[Part]:
    for match in LINE.finditer(text):
        yield Part(int(match.group(1)), match.group(2).strip(), match.start(2))


def _entries(text: str, index: int, name: str) -> Iterator[Part]:
    """Entries of an object, one by one, so that those before a break count."""
    try:
        while True:
            key, index = DECODER.raw_decode(text, _skip(text, index))
            index = _skip(text, index)
            if not isinstance(key, str) or text[index : index + 1] != ":":
                return
            start = _skip(text, index + 1)
            _, index = DECODER.raw_decode(text, start)
            if key.strip().isascii() and key.strip().isdigit() and len(key) < 8:
                # as the answer about one utterance alone would be written
                yield Part(int(key), f"{{{json.dumps(name)}: {text[start:index]}}}")
            index = _skip(text, index)
            if text[index : index + 1] != ",":
                return
            index += 1
    except (ValueError, RecursionError):  # cut off, not JSON, or nested beyond all measure
        return


def _skip(text: str, index: int) -> int:
    match = SPACES.match(text, index)
    return index if match is None else match.end()


# -- log-probabilities ----------------------------------------------------------------------


def _token_starts(answer: Completion) -> list[int] | None:
    """Where each token begins in the text; None if the tokens are not those of the text."""
    if answer.tokens is None or "".join(token for token, _ in answer.tokens) != answer.texts[0]:
        return None
    lengths = (len(token) for token, _ in answer.tokens)
    return list(accumulate(lengths, initial=0))[:-1]


def _tokens_of(part: Part, tokens: Tokens, starts: list[int]) -> Tokens:
    """The tokens of an answer; the first may begin with the space before it."""
    if part.start is None:
        return []
    end = part.start + len(part.text)
    ends = [*starts[1:], starts[-1] + len(tokens[-1][0])]
    return [
        token
        for token, start, token_end in zip(tokens, starts, ends, strict=True)
        if token_end > part.start and start < end
    ]
