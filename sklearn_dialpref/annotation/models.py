"""What answers: a model behind an OpenAI-compatible endpoint, or a function of one's own."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .batch_api import BatchAPI
from .completion import (
    OUTAGES,
    BadAnswer,
    Completion,
    EndpointError,
    Messages,
    NoAnswer,
    error_in,
    error_text,
    read_completion,
)
from .forms import Asked
from .scoring import SCORINGS, Scoring

__all__ = ["CallableModel", "Model", "OpenAIModel", "Settings", "models_of"]

WITHOUT_LOGPROBS = 3  # answers, none with log-probabilities: the endpoint gives none
HTTP_ERRORS = {str(status) for status in range(400, 600)}
NO_KEY = "none"  # what servers on one's own machine are sent


@dataclass(frozen=True)
class Settings:
    """How to ask.

    Attributes
    ----------
    scoring : str
        A name in :data:`~sklearn_dialpref.annotation.scoring.SCORINGS`.
    n_samples : int
    temperature : float
        Of samples; the other ways ask at 0.
    extra_body : mapping
        Further entries of each request.
    utterances_per_call : int or "dialogue"
        No part of what answers depend on: the messages say it.
    """

    scoring: str = "auto"
    n_samples: int = 5
    temperature: float = 1.0
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    utterances_per_call: int | str = 1

    @property
    def way(self) -> Scoring:
        """How answers are asked for and read."""
        return SCORINGS[self.scoring]

    def to_dict(self) -> dict[str, Any]:
        """What the answers depend on: without what this way of scoring does not use."""
        content: dict[str, Any] = {"scoring": self.scoring}
        if any(way.sampled for way in self.way.ways):
            content |= {"n_samples": self.n_samples, "temperature": self.temperature}
        if self.extra_body:
            content["extra_body"] = dict(self.extra_body)
        return content

    def answer_tokens(self, asked: Asked) -> int:
        """The most tokens that one answer may take."""
        return max(way.answer_tokens(asked) for way in self.way.ways)


class OpenAIModel:
    """A model behind an endpoint that speaks the OpenAI API.

    The key is read from the environment when a pass begins, and kept by the SDK's client only
    as long as the pass lasts.

    Parameters
    ----------
    name : str
    base_url : str or None, default=None
        None: OpenAI itself.
    api_key_env : str, default="OPENAI_API_KEY"
        *Name* of the environment variable that holds the key.
    timeout : float, default=60.0
        Seconds.
    max_retries : int, default=6
        Of one call, with growing pauses, or the one that the server asks for.
    """

    concurrency = 16

    def __init__(
        self,
        name: str,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 60.0,
        max_retries: int = 6,
    ) -> None:
        self.name = name
        self.base_url = base_url
        self.api_key_env = api_key_env
        self.timeout = timeout
        self.max_retries = max_retries
        self._client: Any = None
        self._answered = False
        self._gives_logprobs: bool | None = None
        self._without_logprobs = 0

    def __repr__(self) -> str:
        return f"OpenAIModel({self.name!r}, base_url={self.base_url!r})"

    async def __aenter__(self) -> OpenAIModel:
        try:
            import openai
        except ImportError:
            raise ImportError(
                "asking a model by name needs openai, which is not installed; "
                "pip install 'sklearn-dialpref[llm]'"
            ) from None
        key = os.environ.get(self.api_key_env)
        if not key:
            if self.base_url is None:
                raise EndpointError(
                    f"the environment variable {self.api_key_env} is not set; put your API key "
                    "there, or name another variable as api_key_env"
                )
            key = NO_KEY
        if not (key.isascii() and key.isprintable()):
            raise EndpointError(
                f"the key in {self.api_key_env} has a character that no key can have, such as a "
                "line break; set the variable to the key alone"
            )
        self._client = openai.AsyncOpenAI(
            api_key=key, base_url=self.base_url, timeout=self.timeout, max_retries=self.max_retries
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()
        self._client = None

    def most_requests(self, settings: Settings) -> int:
        """How many times a question may be billed: some servers give one sample a request."""
        ways = [settings.way] if self._gives_logprobs else settings.way.ways
        return sum(way.n_answers(settings.n_samples) for way in ways)

    def way(self, settings: Settings, asked: Asked) -> Scoring:
        """How to ask now, by what the endpoint is known to give.

        Codes of several characters cannot be read off the one token that a plain answer has.
        """
        way = settings.way
        too_long = asked.plain and any(len(code) > 1 for code in asked.form.codes)
        if way.fallback is not None and (too_long or self._gives_logprobs is False):
            return way.fallback
        return way

    async def complete(self, messages: Messages, asked: Asked, settings: Settings) -> Completion:
        """Ask, in the way that the settings and the endpoint allow."""
        way = self.way(settings, asked)
        if not way.logprobs:
            return await self._texts(way, messages, asked, settings)
        try:
            completion = await self._request(way, messages, asked, settings)
        except NoAnswer as error:
            if not self.refuses_logprobs(error, settings):
                raise
            completion = Completion([])
        if completion.logprobs is not None:
            self._gives_logprobs = True
        elif not completion.filtered:
            return await self._without(completion, way, messages, asked, settings)
        return completion

    async def _without(
        self,
        first: Completion,
        way: Scoring,
        messages: Messages,
        asked: Asked,
        settings: Settings,
    ) -> Completion:
        """What to do with an answer that lacks log-probabilities."""
        if way.fallback is None or self._gives_logprobs:
            raise NoAnswer(
                "an answer without log-probabilities",
                broken=True,
                tokens_in=first.tokens_in,
                tokens_out=first.tokens_out,
            )
        self._without_logprobs += 1
        if self._without_logprobs >= WITHOUT_LOGPROBS:
            self._gives_logprobs = False
        more = await self._texts(way.fallback, messages, asked, settings)
        return Completion(more.texts, None, more.finish_reason, *_billed_together([first, more]))

    async def _texts(
        self, way: Scoring, messages: Messages, asked: Asked, settings: Settings
    ) -> Completion:
        """Ask in a way that needs no log-probabilities."""
        if not way.sampled:
            return await self._request(way, messages, asked, settings)
        parts: list[Completion] = []
        texts: list[str] = []
        while len(texts) < settings.n_samples:  # some servers give one, whatever n is
            wanted = settings.n_samples - len(texts)
            try:
                part = await self._request(way, messages, asked, settings, n=wanted)
            except NoAnswer as error:
                error.tokens_in += sum(one.tokens_in for one in parts)
                error.tokens_out += sum(one.tokens_out for one in parts)
                raise
            parts.append(part)
            texts += part.texts
            if part.filtered:
                break
        return Completion(texts, None, part.finish_reason, *_billed_together(parts))

    async def _request(
        self,
        way: Scoring,
        messages: Messages,
        asked: Asked,
        settings: Settings,
        **more: int,
    ) -> Completion:
        import openai

        # raised after the handlers, so that no traceback leads to a request with the key
        failure: Exception
        try:
            # the SDK's typed method spends twice the time on looking at the messages
            body = self._body(way, messages, asked, settings, **more)
            text = await self._client.post("/chat/completions", cast_to=str, body=body)
            return self._read(json.loads(text))
        except openai.OpenAIError as error:
            failure = self._failure(error)
        except (EndpointError, NoAnswer) as error:
            failure = error
        except (ValueError, RecursionError) as error:  # not JSON, or nested beyond all measure
            failure = NoAnswer(
                f"an answer that is not a whole completion ({type(error).__name__})", broken=True
            )
        raise failure

    def _body(
        self,
        way: Scoring,
        messages: Messages,
        asked: Asked,
        settings: Settings,
        **more: int,
    ) -> dict[str, Any]:
        """What is sent."""
        options = way.request(asked, settings.temperature) | more
        if self.base_url is None:  # OpenAI's newer models refuse the old name
            options["max_completion_tokens"] = options.pop("max_tokens")
        return {"model": self.name, "messages": messages, **options, **settings.extra_body}

    def _read(self, answer: Any) -> Completion:
        """The completion that was sent back."""
        if error := error_in(answer):
            raise self._error_inside(error)
        try:
            completion = read_completion(answer, self._key)
        except BadAnswer as error:
            raise NoAnswer(str(error), broken=True) from None
        self._answered = True
        return completion

    # -- batches --------------------------------------------------------------------------------

    def batches(self) -> BatchAPI:
        """The endpoint's batch interface, while the pass lasts."""
        return BatchAPI(self._client, self.base_url or "OpenAI", self._key, self._failure)

    def batch_body(self, messages: Messages, asked: Asked, settings: Settings) -> dict[str, Any]:
        """The request of a batch."""
        way = self.way(settings, asked)
        more = {"n": settings.n_samples} if way.sampled else {}
        return self._body(way, messages, asked, settings, **more)

    def read_batch(self, outcome: dict[str, Any] | NoAnswer, settings: Settings) -> Completion:
        """The completion that a batch has for a request; raises NoAnswer if there is none."""
        if isinstance(outcome, NoAnswer):
            raise outcome
        try:
            completion = self._read(outcome)
        except EndpointError as error:  # that met this request hours ago
            raise NoAnswer(str(error)) from None
        if settings.way.needs_logprobs and completion.logprobs is None and not completion.filtered:
            raise NoAnswer(
                "an answer without log-probabilities",
                broken=True,
                tokens_in=completion.tokens_in,
                tokens_out=completion.tokens_out,
            )
        return completion

    def refuses_logprobs(self, error: NoAnswer, settings: Settings) -> bool:
        """Whether it can be asked again without the log-probabilities that it refuses."""
        if settings.way.fallback is None or "logprobs" not in str(error):
            return False
        self._gives_logprobs = False
        return True

    # -- errors ---------------------------------------------------------------------------------

    @property
    def _key(self) -> str | None:
        """The key of this pass, where there is one."""
        key: str = self._client.api_key
        return None if key == NO_KEY else key

    def _failure(self, error: Exception) -> Exception:
        """What an error of the SDK means, without its words that may quote the key."""
        import openai

        where = self.base_url or "OpenAI"
        tries = f"tried {self.max_retries + 1} times"
        if isinstance(error, openai.APITimeoutError):
            return NoAnswer(f"no answer within {self.timeout:g} s, {tries}", outage=True)
        if isinstance(error, openai.APIConnectionError):
            cause = type(error.__cause__ or error).__name__
            return NoAnswer(f"no connection to {where} ({cause}), {tries}", outage=True)
        if not isinstance(error, openai.APIStatusError):
            return NoAnswer(type(error).__name__)
        return self._refusal(error.status_code, *error_text(error.body, self._key))

    def _error_inside(self, error: Any) -> Exception:
        """What an error means that came as if it were an answer, with HTTP status 200."""
        code, message = error_text(error, self._key)
        failure = self._refusal(int(code) if code in HTTP_ERRORS else 200, code, message)
        if isinstance(failure, NoAnswer):  # the SDK did not repeat it: to it this was an answer
            failure.broken = "content_filter" not in code
        return failure

    def _refusal(self, status: int, code: str, message: str) -> Exception:
        where = self.base_url or "OpenAI"
        if status == 401 or (status == 403 and not self._answered):
            return EndpointError(
                f"{where} refused the key in {self.api_key_env} (HTTP {status}); check that it is "
                f"valid and may use {self.name}"
            )
        if status == 404 and not self._answered:
            return EndpointError(
                f"{where} knows no model {self.name!r} or no such path (HTTP 404); check model "
                "and base_url"
            )
        if status == 402 or code == "insufficient_quota":
            return EndpointError(
                f"{where} says that there is no credit left (HTTP {status}: {message}); what was "
                "answered is in the cache, so run again when there is"
            )
        if "content_filter" in code:
            return NoAnswer("content filter")
        return NoAnswer(f"HTTP {status}: {message}", outage=status in OUTAGES or status >= 500)


class CallableModel:
    """A model of one's own: a function of the messages.

    Parameters
    ----------
    function : callable
        Of the messages (a list of dict with ``role`` and ``content``); returns the answer as a
        str, or a :class:`Completion`. It may be a coroutine function; one that is not runs in a
        thread. What it raises is the reason why that question has no answer.
    max_retries : int, default=6
        How often it is asked again about turns that its answer leaves out, at most.
    """

    base_url = None

    def __init__(self, function: Callable[[Messages], Any], max_retries: int = 6) -> None:
        self.function, self.max_retries = function, max_retries
        own = getattr(function, "name", None)
        kind = function if hasattr(function, "__qualname__") else type(function)
        self.name = str(own or f"{kind.__module__}.{kind.__qualname__}")
        self.nameless = not own and ("<" in kind.__qualname__ or kind.__module__ == "__main__")
        self._waits = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object's method
        )
        # what is asked in threads need not bear two at once
        self.concurrency = OpenAIModel.concurrency if self._waits else 1

    async def __aenter__(self) -> CallableModel:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    def most_requests(self, settings: Settings) -> int:
        """How many times it is asked."""
        return settings.way.n_answers(settings.n_samples)

    async def complete(self, messages: Messages, asked: Asked, settings: Settings) -> Completion:
        """Ask once, or ``n_samples`` times where samples are wanted."""
        times = self.most_requests(settings)
        completions = [await self._once(messages) for _ in range(times)]
        if settings.way.needs_logprobs and completions[0].logprobs is None:
            raise NoAnswer("an answer without log-probabilities")
        if times == 1:
            return completions[0]
        try:
            return Completion(
                [text for one in completions for text in one.texts],
                None,
                completions[-1].finish_reason,
                *_billed_together(completions),
            )
        except BadAnswer as error:  # more tokens together than can be
            raise NoAnswer(str(error)) from None

    async def _once(self, messages: Messages) -> Completion:
        try:
            if self._waits:
                answer = await self.function(messages)
            else:
                answer = await asyncio.to_thread(self.function, messages)
            if isinstance(answer, str):
                answer = Completion([answer])
        except (EndpointError, NoAnswer):
            raise
        except BadAnswer as error:  # values that cannot be meant
            raise NoAnswer(str(error)) from None
        except Exception as error:  # the function is the user's: its failure is one answer's
            raise NoAnswer(f"{type(error).__name__}: {str(error)[:200]}", outage=True) from None
        if isinstance(answer, Completion):
            return answer
        raise EndpointError(
            f"{self.name} returned {type(answer).__name__}; return the answer as str, or a "
            "Completion"
        )


Model = OpenAIModel | CallableModel


def _billed_together(completions: Sequence[Completion]) -> tuple[int, int, int]:
    """Tokens in, out, and in from a cache, of several completions."""
    return (
        sum(one.tokens_in for one in completions),
        sum(one.tokens_out for one in completions),
        sum(one.tokens_cached for one in completions),
    )


def models_of(
    given: str | Callable[..., Any] | list[Any],
    base_url: str | None,
    api_key_env: str,
    timeout: float,
    max_retries: int,
) -> list[Model]:
    """A model for each name and function that was given; names are of one endpoint."""
    return [
        OpenAIModel(one, base_url, api_key_env, timeout, max_retries)
        if isinstance(one, str)
        else CallableModel(one, max_retries)
        for one in (given if isinstance(given, list) else [given])
    ]
