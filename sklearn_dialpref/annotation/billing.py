"""What questions cost: tokens, prices, and a budget that is never passed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .completion import Completion, Messages

__all__ = ["Ledger", "Limits", "Usage", "count_tokens", "most_tokens", "price_of"]

MESSAGE_TOKENS = 4  # of a message's role and frame
PIECES = re.compile(r"[A-Za-z]+|[^\W\d_]+|\d{1,3}|[^\w\s]+|_|\n+")
CJK = "\u2e80"  # where the scripts begin whose letters are words
TEMPLATE_TOKENS = 64  # that a server may put around the messages, at most


@dataclass
class Usage:
    """Calls and tokens of a pass.

    Attributes
    ----------
    calls : int
        Calls that were made and answered.
    cached : int
        Questions, of an utterance by a prompt, whose answer was there already.
    failed : int
        Questions without an answer.
    tokens_in, tokens_out : int
    tokens_cached : int
        How many of ``tokens_in`` came from the endpoint's cache of prompts.
    cost : float
        In the currency of the prices; 0 without prices.
    """

    calls: int = 0
    cached: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.tokens_in + self.tokens_out

    def __add__(self, other: Usage) -> Usage:
        names = [entry.name for entry in fields(self)]
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True)
class Limits:
    """What a pass may use.

    Attributes
    ----------
    concurrency : int
    requests_per_minute, tokens_per_minute : float or None
    budget : float or None
        In the currency of ``price``.
    token_budget : int or None
    price : tuple of float
        Of a million tokens in, out, and in from the endpoint's cache of prompts.
    """

    concurrency: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    budget: float | None = None
    token_budget: int | None = None
    price: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def cost(self, tokens_in: float, tokens_out: float, tokens_cached: float = 0) -> float:
        """In the currency of ``price``."""
        new, out, cached = self.price
        tokens = (tokens_in - tokens_cached) * new + tokens_out * out + tokens_cached * cached
        return tokens / 1e6

    def most_cost(self, tokens_in: float, tokens_out: float) -> float:
        """The most that it may be, whatever comes from a cache."""
        return max(self.cost(tokens_in, tokens_out, part) for part in (0, tokens_in))


class Ledger:
    """What was used, and what the questions under way may still use.

    Parameters
    ----------
    limits : Limits
    before : Usage
        What counts against the budget already.
    answered : bool, default=False
        Whether some of that came from the same model.
    """

    def __init__(self, limits: Limits, before: Usage, answered: bool = False) -> None:
        self.limits = limits
        self.before = before
        self.answered = answered
        self.usage = Usage()
        self.reserved_tokens = 0.0
        self.reserved_cost = 0.0
        self.under_way = 0
        self.counted = 0
        self.lost = 0  # stored answers that are damaged, and have to be paid again
        self.excess = 1.0  # of billed tokens over the most that was thought possible

    @property
    def ratio(self) -> float:
        """Tokens billed for each token counted, in what was answered so far."""
        return self.usage.tokens_in / self.counted if self.counted else 1.0

    def reserve(self, tokens_in: float, tokens_out: float) -> tuple[float, float] | None:
        """Set the most that a question may take aside; None if it could pass the budget.

        What was set aside (tokens, cost) is for :meth:`release`.
        """
        limits = self.limits
        tokens_in *= self.excess
        tokens, cost = tokens_in + tokens_out, limits.most_cost(tokens_in, tokens_out)
        all_tokens = self.before.tokens + self.usage.tokens + self.reserved_tokens + tokens
        if limits.token_budget is not None and all_tokens > limits.token_budget:
            return None
        all_cost = self.before.cost + self.usage.cost + self.reserved_cost + cost
        if limits.budget is not None and all_cost > limits.budget:
            return None
        self.reserved_tokens += tokens
        self.reserved_cost += cost
        self.under_way += 1
        return tokens, cost

    def release(self, reserved: tuple[float, float]) -> None:
        """Give back what a question was set aside."""
        self.reserved_tokens -= reserved[0]
        self.reserved_cost -= reserved[1]
        self.under_way -= 1

    def bill(self, answer: Completion, counted: int, most_in: float) -> None:
        """Write an answer to the bill, and learn how its tokens compare with those counted."""
        self.usage.calls += 1
        self.answered = True
        if answer.tokens_in:
            self.counted += counted
            self.excess = max(self.excess, answer.tokens_in / most_in)
        self.usage.tokens_cached += min(answer.tokens_cached, answer.tokens_in)
        self._add(answer.tokens_in, answer.tokens_out)

    def bill_lost(self, tokens_in: int, tokens_out: int, counted: int) -> None:
        """Write down what an answer of no use was billed; guess where that is unknown."""
        ratio = self.ratio
        if tokens_in:
            self.counted += counted
        self._add(tokens_in or round(ratio * counted), tokens_out)

    def _add(self, tokens_in: int, tokens_out: int) -> None:
        usage = self.usage
        usage.tokens_in += tokens_in
        usage.tokens_out += tokens_out
        usage.cost = self.limits.cost(usage.tokens_in, usage.tokens_out, usage.tokens_cached)


def count_tokens(messages: Messages) -> int:
    """About how many tokens messages have, without the model's tokenizer.

    A token for each eight letters begun of a word of ASCII letters, four of other alphabets, for
    each three digits, each run of marks or line feeds; 0.8 for a Chinese or Japanese character.
    On English prompts within 3 % of OpenAI's o200k_base and cl100k_base; other tokenizers make
    up to 15 % more of English, and up to 40 % more of other languages.
    """
    total = 0.0
    for message in messages:
        for piece in PIECES.findall(message["content"]):
            first = piece[0]
            if first >= CJK:
                total += 0.8 * len(piece)
            elif first.isalpha():
                total += -(-len(piece) // (8 if first.isascii() else 4))
            else:
                total += 1
        total += MESSAGE_TOKENS
    return round(total)


def most_tokens(messages: Messages) -> int:
    """The most tokens that messages can have: no tokenizer makes more than one of a byte."""
    written = sum(len(message["content"].encode()) + MESSAGE_TOKENS for message in messages)
    return written + TEMPLATE_TOKENS


def price_of(model: str, prices: Any) -> tuple[float, float, float]:
    """Of a million tokens in, out, and in from a cache; 0 where unknown.

    ``prices`` is (in, out) or (in, out, cached), for all models or by name. Without a price of
    their own cached tokens cost what others do.
    """
    price = prices.get(model) if isinstance(prices, Mapping) else prices
    if price is None:
        return 0.0, 0.0, 0.0
    new, out, *cached = (float(one) for one in price)
    return new, out, cached[0] if cached else new
