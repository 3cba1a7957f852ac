"""A small service that labels live dialogues, over HTTP and WebSocket, with a page to watch.

    pip install 'sklearn-dialpref[serve]'
    python examples/serve_fastapi.py FOLDER        # that export_onnx wrote
    python examples/serve_fastapi.py sentiment=FOLDER acts=ANOTHER
    pip install 'sklearn-dialpref[serve,offline]' pandas
    python examples/serve_fastapi.py               # trains one on the bundled chats first

- ``/`` is a page that shows a conversation with its labels and scores as they appear.
- ``/dialogue`` is a WebSocket for one dialogue: send ``{"text": "…", "speaker": "…"}`` (speaker is
  optional) for each utterance, receive its label and scores, or ``{"error": "…"}``.
- ``POST /predict`` takes a dialogue as it stands: ``{"utterances": [{"text": "…"}, …]}``.
- ``/health`` answers 200 as long as each model answers, and ``/metrics`` is for Prometheus.
- ``/models`` lists the models. ``/models/NAME/predict``, ``…/dialogue`` and ``…/health`` are of
  one of them; without ``/models/NAME`` it is the first.

At a SIGHUP (``kill -HUP``) it loads the folders again and drops no dialogue. If that fails, the
model stays as it is, and the log says why.

What is sent is limited in size, number and time, for all models together, and nothing of it is
stored or logged. The service takes as much work at a time as it can answer in seconds; more gets a
503 at once. A request that has not arrived whole after ten seconds is given up. Pages of other
sites and unknown host names are refused; behind a proxy, name the host that users type with
``--allowed-host``. It knows no users and no encryption: put it behind a proxy that does.
"""

import argparse
import asyncio
import base64
import hashlib
import logging
import re
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import h11
import prometheus_client as prom
import uvicorn
from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from uvicorn.protocols.http.h11_impl import H11Protocol

from sklearn_dialpref import DialogueStream, MicroBatcher, OnnxDialogueClassifier

PAGE = Path(__file__).with_suffix(".html")
MAX_TEXT = 2_000  # characters of an utterance
MAX_UTTERANCES = 200  # of a request
MAX_CHARACTERS = 50_000  # of all requests at work
MAX_BODY = 250_000  # bytes of a request
MAX_HEAD = 16_384  # bytes of its headers
MAX_UNFINISHED = 2_500  # requests that have not arrived whole
MAX_CONNECTIONS = 4_000
MAX_MESSAGE = 12 * MAX_TEXT + 2_000  # bytes of a message of a WebSocket; JSON has up to 12 for one
MAX_PENDING = 256  # utterances that wait before the models
MAX_DIALOGUES = 1_000  # at once
MAX_BAD = 20  # messages in a row until a dialogue is closed
ARRIVAL = 10.0  # seconds until a request has to be there
PATIENCE = 10.0  # seconds until an answer, or a reader, is given up
SILENCE = 600.0  # seconds until a dialogue that says nothing is closed
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
BUSY = "too much to do, try again later"
NAMED = re.compile(r"([A-Za-z0-9_-]{1,50})=(.+)")  # a folder with the name of its model
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
Loaders = Mapping[str, Callable[[], Any]]  # of models, by their names

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


@dataclass(eq=False)
class Served:
    """A model, how it is loaded, and when it answered last."""

    name: str
    load: Callable[[], Any]
    batcher: MicroBatcher
    answered: float
    n_dialogues: int = 0

    @property
    def classes(self) -> list[str]:
        return [str(label) for label in self.batcher.model.fitted_labels_.classes]

    async def answers(self) -> bool:
        # with much to do the last answer tells as much, and a question would have to wait
        if self.batcher.n_waiting and time.monotonic() < self.answered + PATIENCE:
            return True
        try:
            async with asyncio.timeout(PATIENCE):
                await DialogueStream(self.batcher).apush("Is anybody there?")
        except Exception as error:  # whatever it is, the model does not answer
            log.error("the model %s does not answer: %r", self.name, error)
            return False
        return True

    async def reload(self) -> None:
        try:
            self.batcher.reload(await asyncio.to_thread(self.load))
            log.info("the model %s was loaded again", self.name)
        except Exception as error:  # whatever it is, the old one is better than none
            log.error("the model %s stays, as it could not be loaded again: %s", self.name, error)


class Metrics:
    """What Prometheus is told, of one service; a model "" stands for none."""

    def __init__(self) -> None:
        self.registry = prom.CollectorRegistry()
        of = {"registry": self.registry}
        self.seconds = prom.Histogram(
            "dialpref_seconds", "Until an utterance was answered", ["model"], buckets=BUCKETS, **of
        )
        self.labels = prom.Counter("dialpref_labels", "Labels given", ["model", "label"], **of)
        self.refused = prom.Counter("dialpref_refused", "Not answered", ["model", "why"], **of)
        self.dialogues = prom.Gauge("dialpref_open_dialogues", "WebSockets", ["model"], **of)
        self.waiting = prom.Gauge("dialpref_waiting", "Utterances not begun", ["model"], **of)

    def watch(self, model: Served) -> None:
        self.seconds.labels(model.name)  # there before the first answer
        self.dialogues.labels(model.name).set_function(lambda: model.n_dialogues)
        self.waiting.labels(model.name).set_function(lambda: model.batcher.n_waiting)


class Service:
    """Models by their names, and what all of them together have to do."""

    def __init__(self, loaders: Loaders) -> None:
        self.metrics = Metrics()
        self.n_characters = 0  # of the requests at work
        self.models: dict[str, Served] = {}
        for name, load in loaders.items():
            batcher = MicroBatcher(load(), max_pending=max(1, MAX_PENDING // len(loaders)))
            self.models[name] = Served(name, load, batcher, time.monotonic())
            self.metrics.watch(self.models[name])
        self.default = next(iter(self.models))

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        hangup = asyncio.Event()
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
        reloading = asyncio.create_task(self.reload_after(hangup))
        yield
        reloading.cancel()
        closing = [asyncio.to_thread(one.batcher.close, PATIENCE) for one in self.models.values()]
        await asyncio.gather(*closing)

    async def reload_after(self, hangup: asyncio.Event) -> None:
        """Load all models again each time; once for all signals that come meanwhile."""
        while await hangup.wait():
            hangup.clear()
            for one in self.models.values():
                await one.reload()

    def model_of(self, request: HTTPConnection) -> Served:
        name = request.path_params.get("name", self.default)
        if name not in self.models:
            raise HTTPException(404, f"no such model; there are: {', '.join(self.models)}")
        return self.models[name]

    def count_refused(self, request: HTTPConnection, why: str) -> None:
        found = "endpoint" in request.scope  # not with an unknown path
        name = request.path_params.get("name", self.default) if found else ""
        self.metrics.refused.labels(name if name in self.models else "", why).inc()

    async def show_metrics(self) -> Response:
        return Response(
            prom.generate_latest(self.metrics.registry),
            media_type=prom.CONTENT_TYPE_LATEST,
        )

    async def show_models(self) -> JSONResponse:
        models = {name: {"classes": one.classes} for name, one in self.models.items()}
        return JSONResponse({"default": self.default, "models": models})

    async def health(self, request: Request) -> JSONResponse:
        """Of one model, or of all."""
        named = "name" in request.path_params
        models = [self.model_of(request)] if named else [*self.models.values()]
        answers = await asyncio.gather(*(model.answers() for model in models))
        if not all(answers):
            return JSONResponse({"status": "the model does not answer"}, status_code=503)
        return JSONResponse({"status": "ok", "classes": models[0].classes})

    async def answer(
        self, model: Served, stream: DialogueStream, utterance: Utterance
    ) -> dict[str, Any]:
        found = await stream.apush(utterance.text, utterance.speaker)
        model.answered = time.monotonic()
        self.metrics.seconds.labels(model.name).observe(found.latency_ms / 1e3)
        labels = found.label if isinstance(found.label, tuple) else (found.label,)
        for label in labels:
            self.metrics.labels.labels(model.name, str(label)).inc()
        scores = dict(zip(map(str, found.classes), found.scores.tolist(), strict=True))
        return {"label": found.label, "scores": scores, "latency_ms": round(found.latency_ms, 3)}

    async def predict(self, request: Request, dialogue: Dialogue) -> JSONResponse:
        model = self.model_of(request)
        n_characters = sum(len(one.text) for one in dialogue.utterances)
        if n_characters > MAX_CHARACTERS:
            raise HTTPException(422, f"at most {MAX_CHARACTERS} characters in all")
        if self.n_characters + n_characters > MAX_CHARACTERS:
            raise HTTPException(503, BUSY)
        self.n_characters += n_characters
        answer = partial(self.answer, model, DialogueStream(model.batcher))
        try:
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
                # tasks begin in this order, and so do the utterances of the dialogue
                tasks = [group.create_task(answer(one)) for one in dialogue.utterances]
        except TimeoutError as error:
            raise HTTPException(503, BUSY) from error
        except ExceptionGroup as errors:  # whatever they are, the model cannot
            log.error("the model %s failed: %r", model.name, errors.exceptions[0])
            raise HTTPException(500, "the model failed") from errors
        finally:
            self.n_characters -= n_characters
        return JSONResponse([task.result() for task in tasks])

    async def live(self, socket: WebSocket) -> None:
        if not same_site(socket):
            raise HTTPException(403)
        model = self.model_of(socket)
        await socket.accept()
        if sum(one.n_dialogues for one in self.models.values()) >= MAX_DIALOGUES:
            self.count_refused(socket, "overload")
            await end(socket, 1013, "too many dialogues, try again later")
            return
        model.n_dialogues += 1
        try:
            await self.talk(socket, model, DialogueStream(model.batcher))
        except WebSocketDisconnect:
            pass  # it left before its answer
        except TimeoutError:  # of the model, or of one who does not read
            self.count_refused(socket, "overload")
            await end(socket, 1013, BUSY)
        except Exception as error:  # whatever it is, the model cannot
            log.error("the model %s failed: %r", model.name, error)
            self.count_refused(socket, "model")
            await end(socket, 1011, "the model failed")
        finally:
            model.n_dialogues -= 1

    async def talk(self, socket: WebSocket, model: Served, stream: DialogueStream) -> None:
        n_bad = 0
        while n_bad < MAX_BAD and (message := await heard(socket)) is not None:
            async with asyncio.timeout(PATIENCE):
                try:
                    utterance = Utterance.model_validate_json(message)
                except ValidationError as error:
                    n_bad += 1
                    self.count_refused(socket, "input")
                    await socket.send_json({"error": explained(error.errors())})
                else:
                    n_bad = 0
                    await socket.send_json(await self.answer(model, stream, utterance))
        if n_bad == MAX_BAD:
            await end(socket, 1008, "too many bad messages in a row")


def make_app(loaders: Loaders, hosts: Sequence[str] = LOCAL_HOSTS) -> FastAPI:
    """The service of models, each a function that loads it; the first one is the default.

    It answers to these host names only: a page of another site can point a name of its own at
    this machine.
    """
    service = Service(loaders)
    page = PAGE.read_text(encoding="utf-8")
    app = FastAPI(title="Labels of live dialogues", lifespan=service.lifespan, openapi_url=None)
    app.state.service = service
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY)

    @app.middleware("http")
    async def refuse_other_sites(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if same_site(request):
            return await call_next(request)
        service.count_refused(request, "request")
        return JSONResponse({"error": "pages of other sites are refused"}, status_code=403)

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts], www_redirect=False)

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        service.count_refused(request, "input")
        return JSONResponse({"error": explained(error.errors())}, status_code=422)

    @app.exception_handler(StarletteHTTPException)
    async def refuse_request(request: Request, error: StarletteHTTPException) -> JSONResponse:
        why = {503: "overload", 500: "model"}.get(error.status_code, "request")
        service.count_refused(request, why)
        return JSONResponse({"error": error.detail}, status_code=error.status_code)

    @app.get("/", response_class=HTMLResponse)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": security_policy(page)})

    app.get("/metrics")(service.show_metrics)
    app.get("/models")(service.show_models)
    for prefix in ("", "/models/{name}"):
        app.get(f"{prefix}/health")(service.health)
        app.post(f"{prefix}/predict")(service.predict)
        app.websocket(f"{prefix}/dialogue")(service.live)
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
        upgraded = self.transport.get_protocol() is not self  # it is a WebSocket from now on
        if not upgraded and self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
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


def make_server(
    loaders: Loaders, hosts: Sequence[str] = LOCAL_HOSTS, **options: Any
) -> uvicorn.Server:
    """The server of :func:`make_app`, with its limits."""
    config = uvicorn.Config(
        make_app(loaders, hosts),
        http=partial(PromptProtocol, unfinished={}),
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
    rules = ["default-src 'none'", "frame-ancestors 'none'", "connect-src 'self'"]
    rules += ["img-src data:", "base-uri 'none'", "form-action 'none'"]
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


def by_name(arguments: Sequence[str]) -> dict[str, str]:
    """The folders, by the names of their models; one alone needs no name."""
    if len(arguments) == 1 and not NAMED.fullmatch(arguments[0]):
        return {"default": arguments[0]}
    named = [match.groups() for match in map(NAMED.fullmatch, arguments) if match]
    if len(dict(named)) < len(arguments):
        advice = "give each of several folders a name of its own, of letters, digits, - and _"
        raise SystemExit(f"{advice}: NAME=FOLDER; got {' '.join(arguments)}")
    return dict(named)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folders", nargs="*", metavar="NAME=FOLDER", help="one alone needs no name; none is a demo"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--allowed-host", action="append", default=[], help="name that users type, behind a proxy"
    )
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime, for each model")
    options = parser.parse_args()
    load = partial(OnnxDialogueClassifier.load, threads=options.threads)
    loaders = {name: partial(load, path) for name, path in by_name(options.folders).items()}
    if not loaders:
        with tempfile.TemporaryDirectory() as folder:
            model = demo_model(folder)
        loaders = {"default": lambda: model}
    with suppress(KeyboardInterrupt):  # it has ended as it should by then
        hosts = [*LOCAL_HOSTS, options.host, *options.allowed_host]
        make_server(loaders, hosts, host=options.host, port=options.port).run()


if __name__ == "__main__":
    main()
