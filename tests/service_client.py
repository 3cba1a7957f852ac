"""The example service in a thread, and those who talk to it over a real socket."""

import http.client
import importlib.util
import json
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "examples" / "serve_fastapi.py"

pytest.importorskip("fastapi", reason="needs the extra serve")
connect = pytest.importorskip("websockets.sync.client", reason="needs the extra serve").connect
closed = pytest.importorskip("websockets.exceptions").ConnectionClosed
refused = pytest.importorskip("websockets.exceptions").InvalidStatus
parser = pytest.importorskip("prometheus_client.parser", reason="needs the extra serve")


def load_service():
    """The module of the example."""
    spec = importlib.util.spec_from_file_location("serve_fastapi", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def running(service, model):
    """The port of a server of a model, or of models by name, that takes connections."""
    with started(service, model) as (_, port):
        yield port


@contextmanager
def started(service, model):
    """The server's application and its port."""
    loaders = model if isinstance(model, dict) else {"default": lambda: model}
    before = set(threading.enumerate())
    server = service.make_server(loaders, log_level="critical")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # filled soon
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield server.config.app, listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
            left = set(threading.enumerate()) - before
            assert not [one for one in left if one.name == "MicroBatcher"]


def ask(port, method, path, body=None, **headers):
    """Status and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Content-Type": "application/json", **headers}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def predicted(port, utterances, path="/predict"):
    status, text = ask(port, "POST", path, json.dumps({"utterances": utterances}))
    assert status == 200
    return json.loads(text)


def metric(port, name, **labels):
    """The sum over what else it is counted by, such as the models."""
    _, text = ask(port, "GET", "/metrics")
    return sum(
        sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def live(port, path="/dialogue", **options):
    return connect(f"ws://127.0.0.1:{port}{path}", **options)


def said(socket, text, speaker=None):
    socket.send(json.dumps({"text": text} | ({"speaker": speaker} if speaker else {})))
    return json.loads(socket.recv(timeout=30))
