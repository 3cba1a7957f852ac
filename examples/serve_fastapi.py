"""A small service that labels live dialogues, over HTTP and WebSocket, with a page to watch.

    pip install 'sklearn-dialpref[serve]'
    python examples/serve_fastapi.py FOLDER        # that export_onnx wrote
    pip install 'sklearn-dialpref[serve,offline]' pandas
    python examples/serve_fastapi.py               # trains one on the bundled chats first

- ``/`` is a page that shows a conversation with its labels and scores as they appear.
- ``/dialogue`` is a WebSocket for one dialogue: send ``{"text": "…", "speaker": "…"}`` (speaker is
  optional) for each utterance, receive its label and scores, or ``{"error": "…"}``.
- ``POST /predict`` takes a dialogue as it stands: ``{"utterances": [{"text": "…"}, …]}``.
- ``/health`` answers 200 as long as the model answers, and ``/metrics`` is for Prometheus.

What is sent is limited in size, number and time, and nothing of it is stored or logged. The
service takes as much work at a time as it can answer in seconds; more gets a 503 at once. A
request that has not arrived whole after ten seconds is given up. Pages of other sites and unknown
host names are refused; behind a proxy, name the host that users type with ``--allowed-host``. It
knows no users and no encryption: put it behind a proxy that does.
"""

import argparse
import asyncio
import base64
import hashlib
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import h11
import uvicorn
from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from uvicorn.protocols.http.h11_impl import H11Protocol

from sklearn_dialpref import DialogueStream, MicroBatcher, OnnxDialogueClassifier, Prediction

PAGE = Path(__file__).with_suffix(".html")
MAX_TEXT = 2_000  # characters of an utterance
MAX_UTTERANCES = 200  # of a request
MAX_CHARACTERS = 50_000  # of all requests at work
MAX_BODY = 250_000  # bytes of a request
MAX_HEAD = 16_384  # bytes of its headers
MAX_UNFINISHED = 2_500  # requests that have not arrived whole
MAX_CONNECTIONS = 4_000
MAX_MESSAGE = 12 * MAX_TEXT + 2_000  # bytes of a message of a WebSocket; JSON has up to 12 for one
MAX_DIALOGUES = 1_000  # at once
MAX_BAD = 20  # messages in a row until a dialogue is closed
ARRIVAL = 10.0  # seconds until a request has to be there
PATIENCE = 10.0  # seconds until an answer, or a reader, is given up
SILENCE = 600.0  # seconds until a dialogue that says nothing is closed
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
BUSY = "too much to do, try again later"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")

log = logging.getLogger("uvicorn.error")


def not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


class Utterance(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    text: Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(not_blank)]
    speaker: Annotated[str, Field(max_length=100)] | None = None


class Dialogue(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    utterances: Annotated[list[Utterance], Field(min_length=1, max_length=MAX_UTTERANCES)]


class Metrics:
    """What Prometheus is told, of one service."""

    def __init__(self, batcher: MicroBatcher) -> None:
        self.registry = CollectorRegistry()
        of = {"registry": self.registry}
        self.seconds = Histogram(
            "dialpref_seconds", "Until an utterance was answered", buckets=BUCKETS, **of
        )
        self.labels = Counter("dialpref_labels", "Labels given", ["label"], **of)
        self.refused = Counter("dialpref_refused", "What was not answered", ["why"], **of)
        self.n_dialogues = 0
        self.n_characters = 0  # of the requests at work
        self.answered = time.monotonic()  # when the model did so last
        dialogues = Gauge("dialpref_open_dialogues", "WebSockets", **of)
        dialogues.set_function(lambda: self.n_dialogues)
        waiting = Gauge("dialpref_waiting", "Utterances not begun yet", **of)
        waiting.set_function(lambda: batcher.n_waiting)


def make_app(model: Any, hosts: Sequence[str] = LOCAL_HOSTS) -> FastAPI:
    """The service of a model, an OnnxDialogueClassifier or a fitted classifier.

    It answers to these host names only: a page of another site can point a name of its own at
    this machine.
    """
    batcher = MicroBatcher(model)
    metrics = Metrics(batcher)
    classes = [str(label) for label in model.classes_]
    page = PAGE.read_text(encoding="utf-8")
    page_headers = {"Content-Security-Policy": security_policy(page)}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close, PATIENCE)

    app = FastAPI(title="Labels of live dialogues", lifespan=lifespan, openapi_url=None)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY)

    @app.middleware("http")
    async def refuse_other_sites(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if same_site(request):
            return await call_next(request)
        metrics.refused.labels("request").inc()
        return JSONResponse({"error": "pages of other sites are refused"}, status_code=403)

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts], www_redirect=False)

    async def answer(stream: DialogueStream, utterance: Utterance) -> dict[str, Any]:
        found = await stream.apush(utterance.text, utterance.speaker)
        metrics.answered = time.monotonic()
        metrics.seconds.observe(found.latency_ms / 1e3)
        for label in labels_of(found):
            metrics.labels.labels(str(label)).inc()
        return {
            "label": found.label,
            "scores": dict(zip(classes, found.scores.tolist(), strict=True)),
            "latency_ms": round(found.latency_ms, 3),
        }

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        metrics.refused.labels("input").inc()
        return JSONResponse({"error": explained(error.errors())}, status_code=422)

    @app.exception_handler(StarletteHTTPException)
    async def refuse_request(request: Request, error: StarletteHTTPException) -> JSONResponse:
        why = {503: "overload", 500: "model"}.get(error.status_code, "request")
        metrics.refused.labels(why).inc()
        return JSONResponse({"error": error.detail}, status_code=error.status_code)

    @app.get("/", response_class=HTMLResponse)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page, headers=page_headers)

    @app.get("/health")
    async def health() -> JSONResponse:
        # with much to do the last answer tells as much, and a question would have to wait
        if batcher.n_waiting and time.monotonic() < metrics.answered + PATIENCE:
            return JSONResponse({"status": "ok", "classes": classes})
        try:
            async with asyncio.timeout(PATIENCE):
                await DialogueStream(batcher).apush("Is anybody there?")
        except Exception as error:  # whatever it is, the model does not answer
            log.error("the model does not answer: %r", error)
            return JSONResponse({"status": "the model does not answer"}, status_code=503)
        return JSONResponse({"status": "ok", "classes": classes})

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/predict")
    async def predict(dialogue: Dialogue) -> JSONResponse:
        n_characters = sum(len(one.text) for one in dialogue.utterances)
        if n_characters > MAX_CHARACTERS:
            raise HTTPException(422, f"at most {MAX_CHARACTERS} characters in all")
        if metrics.n_characters + n_characters > MAX_CHARACTERS:
            raise HTTPException(503, BUSY)
        metrics.n_characters += n_characters
        stream = DialogueStream(batcher)
        try:
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
                # tasks begin in this order, and so do the utterances of the dialogue
                tasks = [group.create_task(answer(stream, one)) for one in dialogue.utterances]
        except TimeoutError as error:
            raise HTTPException(503, BUSY) from error
        except ExceptionGroup as errors:  # whatever they are, the model cannot
            log.error("the model failed: %r", errors.exceptions[0])
            raise HTTPException(500, "the model failed") from errors
        finally:
            metrics.n_characters -= n_characters
        return JSONResponse([task.result() for task in tasks])

    @app.websocket("/dialogue")
    async def live(socket: WebSocket) -> None:
        if not same_site(socket):
            metrics.refused.labels("request").inc()
            await socket.close()  # which is a 403, as nothing was accepted
            return
        await socket.accept()
        if metrics.n_dialogues >= MAX_DIALOGUES:
            metrics.refused.labels("overload").inc()
            await end(socket, 1013, "too many dialogues, try again later")
            return
        metrics.n_dialogues += 1
        try:
            await talk(socket, DialogueStream(batcher))
        except WebSocketDisconnect:
            pass  # it left before its answer
        except TimeoutError:  # of the model, or of one who does not read
            metrics.refused.labels("overload").inc()
            await end(socket, 1013, BUSY)
        except Exception as error:  # whatever it is, the model cannot
            log.error("the model failed: %r", error)
            metrics.refused.labels("model").inc()
            await end(socket, 1011, "the model failed")
        finally:
            metrics.n_dialogues -= 1

    async def talk(socket: WebSocket, stream: DialogueStream) -> None:
        n_bad = 0
        while n_bad < MAX_BAD and (message := await heard(socket)) is not None:
            async with asyncio.timeout(PATIENCE):
                try:
                    utterance = Utterance.model_validate_json(message)
                except ValidationError as error:
                    n_bad += 1
                    metrics.refused.labels("input").inc()
                    await socket.send_json({"error": explained(error.errors())})
                else:
                    n_bad = 0
                    await socket.send_json(await answer(stream, utterance))
        if n_bad == MAX_BAD:
            await end(socket, 1008, "too many bad messages in a row")

    return app


class PromptProtocol(H11Protocol):
    """HTTP whose requests arrive whole within ``ARRIVAL``, or are given up.

    uvicorn waits for the rest of a request for ever. With too many unfinished ones the oldest is
    given up first, so that slow senders leave room for others.
    """

    def __init__(self, *args: Any, unfinished: dict[Any, asyncio.TimerHandle], **options: Any):
        super().__init__(*args, **options)
        self._unfinished = unfinished

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._wait_for_request()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        if self in self._unfinished or self.transport.is_closing():
            return
        if len(self._unfinished) >= MAX_UNFINISHED:
            next(iter(self._unfinished))._give_up()
        self._unfinished[self] = self.loop.call_later(ARRIVAL, self._give_up)

    def _stop_waiting(self) -> None:
        if timer := self._unfinished.pop(self, None):
            timer.cancel()

    def _give_up(self) -> None:
        self._stop_waiting()
        self.transport.abort()


def make_server(model: Any, hosts: Sequence[str] = LOCAL_HOSTS, **options: Any) -> uvicorn.Server:
    """The server of :func:`make_app`, with its limits."""
    protocol: Any = partial(PromptProtocol, unfinished={})
    config = uvicorn.Config(
        make_app(model, hosts),
        http=protocol,
        access_log=False,
        h11_max_incomplete_event_size=MAX_HEAD,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=5,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,  # few bytes could hold many long messages
        **options,
    )
    return uvicorn.Server(config)


async def heard(socket: WebSocket) -> str | bytes | None:
    """The next message; None when the other side has left, or is closed for its silence."""
    try:
        async with asyncio.timeout(SILENCE):
            message = await socket.receive()
    except TimeoutError:
        await end(socket, 1001, "nothing was said for a while")
        return None
    if message["type"] == "websocket.disconnect":
        return None
    return message.get("text") or message.get("bytes") or ""


async def end(socket: WebSocket, code: int, reason: str) -> None:
    """Say goodbye, to those who read it."""
    with suppress(TimeoutError, WebSocketDisconnect):
        async with asyncio.timeout(1):
            await socket.close(code, reason)


def labels_of(found: Prediction) -> tuple:
    return found.label if isinstance(found.label, tuple) else (found.label,)


def same_site(request: HTTPConnection) -> bool:
    """Whether no page of another site sends it; programs name no origin."""
    origin = request.headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:  # such as http://[
        return False


def explained(errors: Any) -> str:
    """What was wrong, without what arrived: that may be long, or private."""
    reasons = []
    for one in errors[:5]:
        unknown = one["type"] == "extra_forbidden"  # then the last place is what arrived
        places = one["loc"][:-1] if unknown else one["loc"]
        message = "an unknown field" if unknown else one["msg"]
        reasons.append(": ".join([".".join(map(str, places)), message]))
    return "; ".join(reasons)


def security_policy(page: str) -> str:
    """Only the page's own style and script, and connections to where it came from."""
    rules = [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    for tag in ("style", "script"):
        text = page.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        rules.append(f"{tag}-src 'sha256-{digest}'")
    return "; ".join(rules)


def demo_model(folder: str) -> OnnxDialogueClassifier:
    """Sentiments of support chats, from the few bundled ones."""
    from sklearn_dialpref import DialoguePreferenceClassifier, export_onnx  # they need torch
    from sklearn_dialpref.datasets import load_support_chats

    chats = load_support_chats()
    train, test = ~chats.test, chats.test
    clf = DialoguePreferenceClassifier(context_turns=1, random_state=0)
    clf.fit(chats.X[train], chats.y_human[train], chats.y_llm[train])
    checks = {"X_check": chats.X[test], "y_check": chats.y[test]}
    print(export_onnx(clf, f"{folder}/model", precision="int8", max_loss=0.02, **checks))
    return OnnxDialogueClassifier.load(f"{folder}/model", threads=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="that export_onnx wrote; by default a demo")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--allowed-host", action="append", default=[], help="name that users type, behind a proxy"
    )
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime")
    options = parser.parse_args()
    if options.folder:
        model = OnnxDialogueClassifier.load(options.folder, threads=options.threads)
    else:
        with tempfile.TemporaryDirectory() as folder:
            model = demo_model(folder)
    with suppress(KeyboardInterrupt):  # it has ended as it should by then
        hosts = [*LOCAL_HOSTS, options.host, *options.allowed_host]
        make_server(model, hosts, host=options.host, port=options.port).run()


if __name__ == "__main__":
    main()
