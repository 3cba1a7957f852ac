"""The calls of an endpoint's batch interface, and the lines of its results."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from .completion import (
    KEY_PART_IN_ANSWERS,
    OUTAGES,
    EndpointError,
    NoAnswer,
    error_in,
    error_text,
    redact,
)

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["ENDED", "Batch", "BatchAPI", "Gone", "TooLarge", "read_line", "request_line"]

URL = "/v1/chat/completions"
WINDOW = "24h"  # the only one that OpenAI takes
PAGE = 100  # batches in one answer, at most
ENDED = ("completed", "failed", "expired", "cancelled")
NOT_THERE = (404, 405, 501)
MOST_ID = 200  # characters
MOST_ERRORS = 3  # of a failed batch that are shown
NOT_WHOLE = "an answer that is not a whole completion"
QUEUE_FULL = "token_limit_exceeded"  # too much waits; the batch may be created again later


class Gone(NoAnswer):
    """The endpoint has no such path, file or batch."""


class TooLarge(NoAnswer):
    """The endpoint takes no file of this size."""


@dataclass(frozen=True)
class Batch:
    """A batch as the provider describes it.

    Attributes
    ----------
    id, file : str
        Of the batch, and of the file that it was created from.
    status : str
        Such as "in_progress", or one of ``ENDED``.
    done, total : int
        Requests that are answered or have failed, and all; 0 while they are not counted.
    results : list of str
        The files of its results, answers first.
    problems : str
        Why it failed, in the provider's words.
    queue_full : bool
        Whether it failed because too much was waiting.
    """

    id: str
    file: str
    status: str
    done: int
    total: int
    results: list[str]
    problems: str
    queue_full: bool


class BatchAPI:
    """An endpoint's batch interface.

    Parameters
    ----------
    client : AsyncOpenAI
        An open one.
    where : str
        The endpoint's name in errors.
    key : str or None
        The key, which is hidden wherever the endpoint repeats it.
    explain : callable
        Of an error of the SDK; returns the EndpointError or NoAnswer that it means.
    """

    def __init__(
        self,
        client: AsyncOpenAI,
        where: str,
        key: str | None,
        explain: Callable[[Exception], Exception],
    ) -> None:
        self._client = client
        self._explain = explain
        self.where, self.key = where, key

    async def check(self) -> None:
        """Raise an EndpointError unless there is such an interface."""
        try:
            await self._get("/batches", limit=1)
        except Gone:
            raise self._missing() from None
        except NoAnswer as error:
            raise EndpointError(f"{self.where} does not list its batches: {error}") from None

    def _missing(self) -> EndpointError:
        return EndpointError(
            f"{self.where} has no batch interface (/files and /batches); use mode='live'"
        )

    async def upload(self, name: str, file: IO[bytes]) -> str:
        """Upload a file of requests; its id."""
        import openai

        failure: Exception
        try:
            content = (f"{name}.jsonl", file, "application/jsonl")
            uploaded = await self._client.files.create(file=content, purpose="batch")
            return self._id(getattr(uploaded, "id", None))
        except openai.OpenAIError as error:
            failure = self._failure(error)
        raise self._missing() if isinstance(failure, Gone) else failure

    async def create(self, file: str) -> Batch:
        """Create a batch from a file. Never repeated by itself: that could ask all twice."""
        body = {"input_file_id": file, "endpoint": URL, "completion_window": WINDOW}
        once = self._client.with_options(max_retries=0)
        return self._batch(await self._body(once.post("/batches", cast_to=str, body=body)))

    async def find(self, file: str) -> Batch | None:
        """The batch that was created from a file, unless it failed; None if there is none."""
        after: dict[str, Any] = {}
        while True:
            page = await self._get("/batches", limit=PAGE, **after)
            entries = page.get("data") or []
            for entry in entries:
                if isinstance(entry, dict) and entry.get("input_file_id") == file:
                    batch = self._batch(entry)
                    if batch.status != "failed":
                        return batch
            if not (page.get("has_more") and entries and isinstance(entries[-1], dict)):
                return None
            after = {"after": self._id(entries[-1].get("id"))}

    async def retrieve(self, batch: str) -> Batch:
        """A batch as it stands now."""
        return self._batch(await self._get(f"/batches/{quote(batch, safe='')}"))

    async def delete(self, file: str) -> None:
        """Delete a file that nothing needs; if that fails, it expires by itself."""
        path = f"/files/{quote(file, safe='')}"
        with suppress(NoAnswer):
            await self._body(self._client.delete(path, cast_to=str))

    async def lines(self, file: str) -> AsyncGenerator[bytes, None]:
        """The lines of a file, as they come in."""
        import openai

        failure: Exception
        try:
            async with self._client.files.with_streaming_response.content(file) as response:
                rest = b""
                # not the SDK's lines, which also end at characters that JSON may contain
                async for part in response.iter_bytes():
                    *whole, rest = (rest + part).split(b"\n")
                    for line in whole:
                        yield line
                yield rest
            return
        except openai.OpenAIError as error:
            failure = self._failure(error)
        except Exception as error:  # of the HTTP library beneath the SDK
            failure = NoAnswer(f"the download broke off ({type(error).__name__})", outage=True)
        raise failure

    # -- answers ------------------------------------------------------------------------------

    async def _get(self, path: str, **params: Any) -> dict[str, Any]:
        options: Any = {"params": params}
        return await self._body(self._client.get(path, cast_to=str, options=options))

    async def _body(self, call: Awaitable[str]) -> dict[str, Any]:
        import openai

        # raised after the handlers, so that no traceback leads to a request with the key
        failure: Exception
        try:
            body = json.loads(await call)
            if isinstance(body, dict):
                return body
            failure = NoAnswer("an answer that is not a JSON object", outage=True)
        except openai.OpenAIError as error:
            failure = self._failure(error)
        except (ValueError, RecursionError):
            failure = NoAnswer("an answer that is not JSON", outage=True)
        raise failure

    def _failure(self, error: Exception) -> Exception:
        status = getattr(error, "status_code", None)
        message = error_text(getattr(error, "body", None), self.key)[1]
        if status in NOT_THERE:
            return Gone(message)
        if status == 413 or "too large" in message.lower():
            return TooLarge(f"HTTP {status}: {message}")
        return self._explain(error)

    def _id(self, value: Any) -> str:
        """An id that can be stored; no key is one, whatever a hostile endpoint sends."""
        valid = isinstance(value, str) and value.isprintable() and 0 < len(value) <= MOST_ID
        if not valid or (self.key and redact(value, self.key, KEY_PART_IN_ANSWERS) != value):
            raise NoAnswer("an answer without a valid id", outage=True)
        return str(value)

    def _batch(self, body: dict[str, Any]) -> Batch:
        counts = body.get("request_counts")
        counts = counts if isinstance(counts, dict) else {}
        numbers = [counts.get(name) for name in ("completed", "failed", "total")]
        completed, failed, total = (n if isinstance(n, int) else 0 for n in numbers)
        files = [body.get(name) for name in ("output_file_id", "error_file_id")]
        errors = body.get("errors")
        errors = errors.get("data") if isinstance(errors, dict) else errors
        errors = errors if isinstance(errors, list) else []
        return Batch(
            id=self._id(body.get("id")),
            file=str(body.get("input_file_id")),
            status=str(body.get("status")).lower(),
            done=completed + failed,
            total=total,
            results=[self._id(file) for file in files if file],
            problems="; ".join(self._problem(error) for error in errors[:MOST_ERRORS]),
            queue_full=any(isinstance(e, dict) and e.get("code") == QUEUE_FULL for e in errors),
        )

    def _problem(self, error: Any) -> str:
        message = error_text(error, self.key)[1]
        line = error.get("line") if isinstance(error, dict) else None
        return f"{message} (line {line})" if isinstance(line, int) else message


def request_line(key: str, body: Any) -> bytes:
    """A request as a line of the file that is uploaded."""
    request = {"custom_id": key, "method": "POST", "url": URL, "body": body}
    return json.dumps(request, allow_nan=False).encode() + b"\n"


def read_line(line: bytes, key: str | None) -> tuple[str, dict[str, Any] | NoAnswer] | None:
    """The custom id of a line of results, and its body or the reason why there is none.

    None if the line cannot be read.
    """
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("custom_id"), str):
        return None
    return content["custom_id"], _outcome(content, key)


def _outcome(content: dict[str, Any], key: str | None) -> dict[str, Any] | NoAnswer:
    response = content.get("response")
    if not isinstance(response, dict):
        return _refused(None, content.get("error"), key)
    body, status = response.get("body"), response.get("status_code")
    if status in (None, 200):
        return body if isinstance(body, dict) else NoAnswer(NOT_WHOLE, broken=True)
    return _refused(status, error_in(body) or body, key)


def _refused(status: Any, error: Any, key: str | None) -> NoAnswer:
    code, message = error_text(error, key)
    if "content_filter" in code:
        return NoAnswer("content filter")
    refused = isinstance(status, int) and 400 <= status < 500 and status not in OUTAGES
    reason = f"HTTP {status}: {message}" if isinstance(status, int) else message
    return NoAnswer(reason, outage=not refused)
