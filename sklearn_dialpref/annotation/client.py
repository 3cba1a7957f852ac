"""Asking language models: many calls at once, within limits, each answer kept."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .cache import AnswerCache

__all__ = [
    "CallableModel",
    "Completion",
    "EndpointError",
    "Job",
    "Limits",
    "OpenAIModel",
    "Settings",
    "Usage",
    "ask_all",
    "count_tokens",
    "run_async",
]

T = TypeVar("T")
Messages = list[dict[str, str]]

LOOKUP = 512  # jobs looked up in the cache at once
BODY_RETRIES = 4  # of an answer that is no whole JSON; the SDK retries the rest
DEAD_AFTER = 20  # failed calls without any answer, and the endpoint counts as down
MESSAGE_TOKENS = 4  # of a message's role and frame
FIRST_RATIO = 1.5  # of tokens counted to tokens billed, before any answer has shown it


class EndpointError(RuntimeError):
    """The endpoint cannot be used at all: wrong key, unknown model, nothing there."""


class NoAnswer(Exception):
    """One call has no answer; others may."""


@dataclass(frozen=True)
class Completion:
    """What a model answered.

    Attributes
    ----------
    texts : list of str
        One per sample.
    logprobs : dict of str to float, or None
        Natural logarithm of the probability of the likeliest first tokens.
    finish_reason : str
        As in the OpenAI API: "stop", "length", "content_filter".
    tokens_in, tokens_out : int
        As billed.
    """

    texts: list[str]
    logprobs: dict[str, float] | None = None
    finish_reason: str = "stop"
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True)
class Settings:
    """How to ask.

    Attributes
    ----------
    scoring : str
        "logprobs", "samples", "schema" or "auto".
    n_samples : int
    temperature : float
        Of samples; the other ways ask at 0.
    """

    scoring: str = "auto"
    n_samples: int = 5
    temperature: float = 1.0


@dataclass(frozen=True)
class Job:
    """One question: about which row, by which member of the ensemble.

    Attributes
    ----------
    row, member : int
    key : str
        Of the cache.
    prompt_id : str
    messages : list of dict
    codes : tuple of str
        What may be answered.
    """

    row: int
    member: int
    key: str
    prompt_id: str
    messages: Messages
    codes: tuple[str, ...]


@dataclass
class Usage:
    """Calls and tokens of a pass.

    Attributes
    ----------
    calls : int
        Answers that were asked for and came.
    cached : int
        Answers that were there already.
    failed : int
    tokens_in, tokens_out : int
    cost : float
        In the currency of the prices; 0 without prices.
    """

    calls: int = 0
    cached: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0


@dataclass
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
        Of a million tokens in, and out.
    """

    concurrency: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    budget: float | None = None
    token_budget: int | None = None
    price: tuple[float, float] = (0.0, 0.0)
    usage: Usage = field(default_factory=Usage)
    reserved_tokens: float = 0.0
    reserved_cost: float = 0.0
    ratio: float = FIRST_RATIO
    counted: int = 0

    @property
    def seen_ratio(self) -> float:
        """Tokens billed for each token counted."""
        return self.usage.tokens_in / self.counted if self.counted else 1.0

    def reserve(self, tokens_in: float, tokens_out: float) -> bool:
        """Set the most that a call may take aside; False if it could pass the budget."""
        tokens, cost = self._size(tokens_in, tokens_out)
        used = self.usage.tokens_in + self.usage.tokens_out + self.reserved_tokens
        if self.token_budget is not None and used + tokens > self.token_budget:
            return False
        if self.budget is not None and self.usage.cost + self.reserved_cost + cost > self.budget:
            return False
        self.reserved_tokens += tokens
        self.reserved_cost += cost
        return True

    def _size(self, tokens_in: float, tokens_out: float) -> tuple[float, float]:
        return tokens_in + tokens_out, self.cost(tokens_in, tokens_out)

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """In the currency of ``price``."""
        return (tokens_in * self.price[0] + tokens_out * self.price[1]) / 1e6

    def release(self, tokens_in: float, tokens_out: float) -> None:
        """Give back what a call was set aside."""
        tokens, cost = self._size(tokens_in, tokens_out)
        self.reserved_tokens -= tokens
        self.reserved_cost -= cost

    def bill(self, completion: Completion, counted: int) -> None:
        """Write an answer to the bill, and learn how its tokens compare with those counted."""
        usage = self.usage
        usage.calls += 1
        self.counted += counted
        usage.tokens_in += completion.tokens_in
        usage.tokens_out += completion.tokens_out
        usage.cost = self.cost(usage.tokens_in, usage.tokens_out)
        if counted and completion.tokens_in:
            seen = 1.05 * completion.tokens_in / counted
            self.ratio = seen if usage.calls == 1 else max(self.ratio, seen)


def count_tokens(messages: Messages) -> int:
    """About how many tokens messages have, without the model's tokenizer.

    A word counts one token for each six letters begun, a digit, a mark or a line feed one.
    """
    total = 0
    for message in messages:
        pieces = re.findall(r"[^\W\d_]+|\d|[^\w\s]+|_|\n+", message["content"])
        total += sum(-(-len(p) // 6) if p[0].isalpha() else 1 for p in pieces) + MESSAGE_TOKENS
    return total


# -- models ---------------------------------------------------------------------------------


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
        self._lacks_logprobs = 0

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
            key = "none"  # servers on one's own machine want none
        self._lacks_logprobs = 0
        self._client = openai.AsyncOpenAI(
            api_key=key, base_url=self.base_url, timeout=self.timeout, max_retries=self.max_retries
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()
        self._client = None

    async def complete(
        self, messages: Messages, codes: tuple[str, ...], settings: Settings
    ) -> Completion:
        """Ask, in the way that the settings and the endpoint allow."""
        scoring = settings.scoring
        if scoring == "auto":
            scoring = "samples" if self._lacks_logprobs >= 3 else "logprobs"
        if scoring == "schema":
            return await self._request(messages, _schema_options(codes))
        if scoring == "samples":
            return await self._samples(messages, settings)
        options = {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 20}
        try:
            found = await self._request(messages, options)
        except NoAnswer as error:
            if settings.scoring != "auto" or "logprobs" not in str(error):
                raise
            found = Completion([""])
            self._lacks_logprobs = 3
        if settings.scoring == "auto" and found.logprobs is None and _unfiltered(found):
            self._lacks_logprobs += 1
            more = await self._samples(messages, settings)
            return Completion(
                more.texts,
                None,
                more.finish_reason,
                found.tokens_in + more.tokens_in,
                found.tokens_out + more.tokens_out,
            )
        if found.logprobs is not None:
            self._lacks_logprobs = 0
        return found

    async def _samples(self, messages: Messages, settings: Settings) -> Completion:
        texts: list[str] = []
        tokens_in = tokens_out = 0
        while len(texts) < settings.n_samples:  # some servers give one, whatever n is
            options = {
                "temperature": settings.temperature,
                "max_tokens": 8,
                "n": settings.n_samples - len(texts),
            }
            part = await self._request(messages, options)
            texts += part.texts
            tokens_in += part.tokens_in
            tokens_out += part.tokens_out
            if not _unfiltered(part):
                break
        return Completion(texts, None, part.finish_reason, tokens_in, tokens_out)

    async def _request(self, messages: Messages, options: dict[str, Any]) -> Completion:
        import openai

        if self.base_url is None:  # OpenAI's newer models refuse the old name
            options["max_completion_tokens"] = options.pop("max_tokens")
        for _ in range(BODY_RETRIES + 1):
            try:
                response = await self._client.chat.completions.with_raw_response.create(
                    model=self.name, messages=messages, **options
                )
                return _read(json.loads(response.content))
            except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
                # the server's words may quote the key
                raise EndpointError(
                    f"{self.base_url or 'OpenAI'} refused the key in {self.api_key_env} "
                    f"(HTTP {error.status_code}); check that it is valid and may use {self.name}"
                ) from None
            except openai.NotFoundError as error:
                raise EndpointError(
                    f"{self.base_url or 'OpenAI'} knows no model {self.name!r} or no such path "
                    f"(HTTP {error.status_code}); check model and base_url"
                ) from None
            except openai.APIStatusError as error:
                raise NoAnswer(_reason(error)) from None
            except openai.APITimeoutError:
                raise NoAnswer(f"no answer within {self.timeout:g} s, tried often") from None
            except openai.APIConnectionError as error:
                cause = type(error.__cause__ or error).__name__
                raise NoAnswer(f"no connection ({cause}), tried often") from None
            except (ValueError, KeyError, TypeError, IndexError) as error:
                broken = error
        raise NoAnswer(f"an answer that is no whole completion ({type(broken).__name__})")


def _reason(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    code, message = str(body.get("code") or ""), str(body.get("message") or "")
    if "content_filter" in code:
        return "content filter"
    return f"HTTP {error.status_code}: {message[:200] or code or 'no reason given'}"


def _read(body: dict[str, Any]) -> Completion:
    """A completion from the body of an answer."""
    choices = body["choices"]
    content = (choices[0].get("logprobs") or {}).get("content") or []
    logprobs = None
    if content:
        likeliest = content[0].get("top_logprobs") or [content[0]]
        logprobs = {entry["token"]: float(entry["logprob"]) for entry in likeliest}
    usage = body.get("usage") or {}
    return Completion(
        [str(choice["message"].get("content") or "") for choice in choices],
        logprobs,
        str(choices[0].get("finish_reason") or "stop"),
        int(usage.get("prompt_tokens") or 0),
        int(usage.get("completion_tokens") or 0),
    )


def _unfiltered(completion: Completion) -> bool:
    return completion.finish_reason != "content_filter"


def _schema_options(codes: tuple[str, ...]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(codes)}},
        "required": ["label"],
        "additionalProperties": False,
    }
    wrapped = {"name": "label", "schema": schema, "strict": True}
    return {
        "temperature": 0,
        "max_tokens": 24,
        "response_format": {"type": "json_schema", "json_schema": wrapped},
    }


class CallableModel:
    """A model of one's own: anything that takes messages and gives an answer.

    Parameters
    ----------
    function : callable
        Of the messages (a list of dict with ``role`` and ``content``); returns the answer as a
        str, or a :class:`Completion`.  It may be a coroutine function.  One that is not runs in
        a thread, several calls at once if ``concurrency`` is above 1.
    """

    base_url = None

    def __init__(self, function: Callable[[Messages], Any]) -> None:
        self.function = function
        own = getattr(function, "name", None)
        kind = function if hasattr(function, "__qualname__") else type(function)
        self.name = str(own or f"{kind.__module__}.{kind.__qualname__}")

    async def __aenter__(self) -> CallableModel:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def complete(
        self, messages: Messages, codes: tuple[str, ...], settings: Settings
    ) -> Completion:
        """Ask once, or ``n_samples`` times where samples are wanted."""
        times = settings.n_samples if settings.scoring == "samples" else 1
        found = [await self._once(messages) for _ in range(times)]
        if times == 1:
            return found[0]
        return Completion(
            [text for one in found for text in one.texts],
            None,
            found[-1].finish_reason,
            sum(one.tokens_in for one in found),
            sum(one.tokens_out for one in found),
        )

    async def _once(self, messages: Messages) -> Completion:
        if asyncio.iscoroutinefunction(self.function):
            answer = await self.function(messages)
        else:
            answer = await asyncio.to_thread(self.function, messages)
        if isinstance(answer, Completion):
            return answer
        if isinstance(answer, str):
            return Completion([answer])
        raise EndpointError(
            f"{self.name} returned {type(answer).__name__}; return the answer as str, or a "
            "Completion"
        )


Model = OpenAIModel | CallableModel


# -- a pass ---------------------------------------------------------------------------------


def ask_all(
    model: Model,
    jobs: Iterable[Job],
    settings: Settings,
    limits: Limits,
    cache: AnswerCache,
    deliver: Callable[[Job, Completion | str], None],
) -> None:
    """Ask all, or look up what was answered before; each answer is stored as it arrives.

    Parameters
    ----------
    model : OpenAIModel or CallableModel
    jobs : iterable of Job
        Taken as they are needed.
    settings : Settings
    limits : Limits
        Its ``usage`` is kept up to date.
    cache : AnswerCache
    deliver : callable
        Called with each job and its answer, or the reason why there is none.

    Raises
    ------
    EndpointError
        If the endpoint cannot be used at all.
    """
    run_async(_Pass(model, settings, limits, cache, deliver).run(iter(jobs)))


class _Pass:
    def __init__(
        self,
        model: Model,
        settings: Settings,
        limits: Limits,
        cache: AnswerCache,
        deliver: Callable[[Job, Completion | str], None],
    ) -> None:
        self.model, self.settings, self.limits = model, settings, limits
        self.cache, self.deliver = cache, deliver
        self.waiting: dict[str, list[Job]] = {}  # same question, being asked
        self.broke = False
        self.failed_in_a_row = 0

    async def run(self, jobs: Iterator[Job]) -> None:
        from aiolimiter import AsyncLimiter

        limits = self.limits
        rates = (limits.requests_per_minute, limits.tokens_per_minute)
        self.rates = [None if rate is None else AsyncLimiter(rate, 60) for rate in rates]
        open_jobs = self._unanswered(jobs)
        async with self.model:
            # one worker ends them all: a TaskGroup cancels the others on an error
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(limits.concurrency):
                        group.create_task(self._work(open_jobs))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None

    def _unanswered(self, jobs: Iterator[Job]) -> Iterator[Job]:
        """Jobs that have to be asked; the others are delivered on the way."""
        while part := list(islice(jobs, LOOKUP)):
            known = self.cache.get_many([job.key for job in part])
            for job in part:
                if job.key in known:
                    self.limits.usage.cached += 1
                    self.deliver(job, Completion(**known[job.key]))
                elif job.key in self.waiting:
                    self.waiting[job.key].append(job)
                elif again := self.cache.get_many([job.key]):  # answered since
                    self.limits.usage.cached += 1
                    self.deliver(job, Completion(**again[job.key]))
                else:
                    self.waiting[job.key] = []
                    yield job

    async def _work(self, jobs: Iterator[Job]) -> None:
        for job in jobs:
            outcome = await self._outcome(job)
            for same in [job, *self.waiting.pop(job.key)]:
                if same is not job and isinstance(outcome, Completion):
                    self.limits.usage.cached += 1
                self.deliver(same, outcome)

    async def _outcome(self, job: Job) -> Completion | str:
        limits = self.limits
        counted = count_tokens(job.messages)
        most = (limits.ratio * counted * self._calls(), 24.0 * self._calls())
        if self.broke or not limits.reserve(*most):
            self.broke = True
            limits.usage.failed += 1
            return "the budget is used up"
        try:
            await self._wait(sum(most))
            found = await self.model.complete(job.messages, job.codes, self.settings)
        except NoAnswer as error:
            limits.usage.failed += 1
            self.failed_in_a_row += 1
            if self.failed_in_a_row >= DEAD_AFTER and not limits.usage.calls:
                raise EndpointError(
                    f"the first {self.failed_in_a_row} calls to {self.model.name} all failed, "
                    f"the last with: {error}"
                ) from None
            return str(error)
        finally:
            limits.release(*most)
        limits.bill(found, counted)
        self.cache.put(job.key, self.model.name, job.prompt_id, asdict(found))
        return found

    def _calls(self) -> int:
        """How many times a prompt may be billed."""
        return {"samples": self.settings.n_samples, "auto": 1 + self.settings.n_samples}.get(
            self.settings.scoring, 1
        )

    async def _wait(self, tokens: float) -> None:
        requests, per_minute = self.rates
        if requests is not None:
            await requests.acquire()
        if per_minute is not None:
            await per_minute.acquire(min(tokens, per_minute.max_rate))


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a thread of its own, wherever one is called from.

    So it works inside a running event loop, as in Jupyter.  Ctrl-C cancels it, waits until it
    has put away what it holds, and is raised.
    """
    loop = asyncio.new_event_loop()
    task: asyncio.Task[T] = loop.create_task(_awaited(work))
    thread = threading.Thread(target=_drive, args=(loop, task), daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except BaseException:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    finally:
        if not thread.is_alive():
            loop.close()
    return task.result()


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def _drive(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    asyncio.set_event_loop(loop)
    loop.run_until_complete(asyncio.wait([task]))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
