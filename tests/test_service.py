"""The example service, over a real socket and in a real browser."""

import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from gated_model import GatedModel, until
from service_client import (
    SCRIPT,
    ask,
    closed,
    live,
    load_service,
    metric,
    predicted,
    refused,
    running,
    said,
)

from sklearn_dialpref import OnnxDialogueClassifier

STORED = Path(__file__).parent / "stored" / "format_1_onnx_int8"
BROWSERS = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"]
SECRET = "4929-1234"


@pytest.fixture(scope="module")
def service():
    return load_service()


@pytest.fixture(scope="module")
def port(service, classifier):
    with running(service, classifier) as port:
        yield port


def rows_of(chats):
    """The texts of each dialogue, and where they stand."""
    X = chats.X
    return [(X["text"][at].tolist(), at) for at in X.groupby("dialogue_id").indices.values()]


def test_a_dialogue_over_http_is_answered_as_predict_does(port, classifier, chats):
    proba, labels = classifier.predict_proba(chats.X), classifier.predict(chats.X)
    for texts, rows in rows_of(chats):
        found = predicted(port, [{"text": text} for text in texts])
        assert [one["label"] for one in found] == labels[rows].tolist()
        scores = [list(one["scores"].values()) for one in found]
        np.testing.assert_allclose(scores, proba[rows], atol=1e-6)
        assert all(list(one["scores"]) == classifier.classes_.tolist() for one in found)
        assert all(one["latency_ms"] > 0 for one in found)


def test_live_dialogues_are_answered_as_predict_does(port, classifier, chats):
    proba = classifier.predict_proba(chats.X)
    dialogues = rows_of(chats)[:4]
    with ExitStack() as stack:
        sockets = [stack.enter_context(live(port)) for _ in dialogues]
        for turn in range(8):  # all of them at once, turn by turn
            for socket_, (texts, rows) in zip(sockets, dialogues, strict=True):
                if turn < len(texts):
                    found = said(socket_, texts[turn], "customer")
                    scores = list(found["scores"].values())
                    np.testing.assert_allclose(scores, proba[rows[turn]], atol=1e-6)


UTTERANCE = {"text": "hi"}
BAD = {
    "nothing": ("", 422),
    "no JSON": ("{'utterances': x}", 422),
    "deep JSON": ("[" * 100_000, 400),
    "no UTF-8": (b'{"utterances": [{"text": "\xff"}]}', 400),
    "half a character": ('{"utterances": [{"text": "\\ud83d"}]}', 422),
    "blank": ({"utterances": [{"text": " \n"}]}, 422),
    "blank for Python": ({"utterances": [{"text": "\x1c"}]}, 422),
    "none": ({"utterances": []}, 422),
    "too many": ({"utterances": [UTTERANCE] * 201}, 422),
    "too much in all": ({"utterances": [{"text": "a" * 1999}] * 30}, 422),
    "too long": ({"utterances": [{"text": SECRET * 300}]}, 422),
    "a number": ({"utterances": [{"text": 4}]}, 422),
    "something else": ({"utterances": [UTTERANCE], SECRET: 1}, 422),
    "a long speaker": ({"utterances": [UTTERANCE | {"speaker": SECRET * 20}]}, 422),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_not_repeated(port, case):
    body, expected = BAD[case]
    body = json.dumps(body) if isinstance(body, dict) else body
    status, text = ask(port, "POST", "/predict", body)
    assert status == expected
    assert len(text) < 500
    assert SECRET not in text
    assert predicted(port, [UTTERANCE])


@pytest.mark.parametrize("told", [True, False])
def test_a_body_of_10_megabytes(port, told):
    pieces = (b"a" * 100_000 for _ in range(100))
    headers = {"Content-Length": "10000000"} if told else {}
    try:
        status = ask(port, "POST", "/predict", pieces, **headers)[0]
    except (BrokenPipeError, ConnectionResetError):
        status = None  # it does not wait for the rest, which can overtake the answer
    assert status in (413, None)
    assert predicted(port, [UTTERANCE])


def test_other_requests(port):
    assert ask(port, "GET", "/predict")[0] == 405
    assert ask(port, "GET", "/../../etc/passwd")[0] == 404
    assert ask(port, "GET", "/dialogue")[0] == 404


def test_a_bad_message_changes_nothing_of_the_dialogue(port, classifier):
    expected = classifier.predict_proba([["a", "My parcel is late."], ["a", "Thanks."]])
    with live(port) as socket_:
        said(socket_, "My parcel is late.")
        for message in (
            "",
            "{",
            b"\xff",
            "null",
            '{"text": " "}',
            f'{{"text": 1, "b": "{SECRET}"}}',
        ):
            socket_.send(message)
            answer = json.loads(socket_.recv(timeout=30))
            assert list(answer) == ["error"]
            assert SECRET not in answer["error"]
        found = said(socket_, "Thanks.")
        np.testing.assert_allclose(list(found["scores"].values()), expected[1], atol=1e-6)


def test_limits_to_the_last_utterance_character_and_byte(port):
    def status(texts, n_bytes=0):
        body = json.dumps({"utterances": [{"text": text} for text in texts]})
        return ask(port, "POST", "/predict", body.ljust(n_bytes))[0]

    full = ["a" * 2_000] * 25
    assert status(["a"] * 200) == status(["a" * 2_000]) == status(full) == 200
    assert status(["a"] * 201) == status(["a" * 2_001]) == status([*full, "a"]) == 422
    assert status(["a"], 250_000) == 200
    assert status(["a"], 250_001) == 413


def test_limits_of_a_live_dialogue(port):
    with live(port) as socket_, live(port) as other:
        assert socket_.protocol.extensions == []  # packed, a message would be a thousand times it
        assert list(said(socket_, "a" * 2_001)) == ["error"]
        assert said(socket_, "😀" * 2_000)["label"]  # 24 kB of JSON
        socket_.send("a" * 26_001)
        with pytest.raises(closed) as told:
            socket_.recv(timeout=30)
        assert told.value.rcvd.code == 1009
        assert said(other, "hi")["label"]


def test_bad_messages_in_a_row_end_a_dialogue(port):
    with live(port) as socket_, live(port) as other:
        for n_bad in (19, 20):
            for _ in range(n_bad):
                assert list(said(socket_, " ")) == ["error"]
            if n_bad < 20:
                assert said(socket_, "hi")["label"]
        with pytest.raises(closed, match="too many bad messages in a row") as told:
            socket_.recv(timeout=30)
        assert told.value.rcvd.code == 1008
        assert said(other, "hi")["label"]


def test_dropped_sockets(port):
    for start in (
        b"",
        b"POST /predict HTTP/1.1\r\nContent-Le",
        b"\x16\x03\x01 no HTTP \xff\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port)) as half:
            half.sendall(start)
    for _ in range(5):
        with live(port) as socket_:
            said(socket_, "hi")
            socket_.send(json.dumps(UTTERANCE))
            # at once and without a goodbye
            socket_.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket_.socket.close()
    until(lambda: metric(port, "dialpref_open_dialogues") == 0)
    assert ask(port, "GET", "/health")[0] == 200


def test_metrics(port, classifier):
    before = metric(port, "dialpref_seconds_count")
    predicted(port, [UTTERANCE] * 7)
    assert metric(port, "dialpref_seconds_count") == before + 7
    refused = metric(port, "dialpref_refused_total", why="input")
    ask(port, "POST", "/predict", "{}")
    assert metric(port, "dialpref_refused_total", why="input") == refused + 1
    with live(port) as socket_:
        said(socket_, "hi")
        assert metric(port, "dialpref_open_dialogues") == 1
    labels = [str(label) for label in classifier.classes_]
    given = [metric(port, "dialpref_labels_total", label=label) for label in labels]
    assert sum(given) == metric(port, "dialpref_seconds_count") > 0


def test_too_much_to_do(service, monkeypatch):
    monkeypatch.setattr(service, "PATIENCE", 0.05)
    model = GatedModel(closed=True)
    busy = (503, '{"error":"too much to do, try again later"}')
    with running(service, model) as port:
        body = json.dumps({"utterances": [UTTERANCE]})
        assert ask(port, "POST", "/predict", body) == busy
        assert ask(port, "GET", "/health")[0] == 503
        with live(port) as socket_:
            socket_.send(json.dumps(UTTERANCE))
            with pytest.raises(closed, match="too much to do, try again later"):
                socket_.recv(timeout=30)
        assert metric(port, "dialpref_refused_total", why="overload") == 2
        model.open()
        assert ask(port, "GET", "/health")[0] == 200


def test_more_than_can_be_answered_is_refused_at_once(service):
    model = GatedModel(closed=True)
    large = json.dumps({"utterances": [{"text": "a" * 1_000}] * 40})
    with running(service, model) as port, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, port, "POST", "/predict", large)
        until(lambda: model.sizes)
        assert ask(port, "POST", "/predict", large)[0] == 503
        assert ask(port, "GET", "/health")[0] == 200  # though the queue does not move yet
        model.open()
        assert first.result()[0] == 200
        assert ask(port, "POST", "/predict", large)[0] == 200


def test_a_model_that_fails(service):
    model = GatedModel()
    with running(service, model) as port:
        model.broken = True
        assert ask(port, "GET", "/health")[0] == 503
        body = json.dumps({"utterances": [UTTERANCE] * 3})
        assert ask(port, "POST", "/predict", body) == (500, '{"error":"the model failed"}')
        with live(port) as socket_:
            socket_.send(json.dumps(UTTERANCE))
            with pytest.raises(closed, match="the model failed"):
                socket_.recv(timeout=30)
        assert metric(port, "dialpref_refused_total", why="model") == 2
        model.broken = False
        assert ask(port, "POST", "/predict", body)[0] == 200


def test_one_who_does_not_read_is_given_up(service, monkeypatch):
    monkeypatch.setattr(service, "PATIENCE", 0.3)
    with running(service, GatedModel()) as port, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        handshake = (
            "GET /dialogue HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        deaf.sendall(handshake.encode())
        until(lambda: metric(port, "dialpref_open_dialogues") == 1)
        deaf.settimeout(1)
        with suppress(TimeoutError, ConnectionError):
            while True:
                deaf.sendall(b'\x81\x8d\0\0\0\0{"text":"hi"}' * 1000)  # each is answered
        until(lambda: metric(port, "dialpref_open_dialogues") == 0)


def test_pages_of_other_sites(port):
    with live(port, origin=f"http://127.0.0.1:{port}") as socket_:
        assert said(socket_, "hi")["label"]
    for origin in ("http://evil.example", "null", "http://[", f"http://127.0.0.1:{port + 1}"):
        with pytest.raises(refused, match="403"), live(port, origin=origin):
            pass
        body = json.dumps({"utterances": [UTTERANCE]})
        assert ask(port, "POST", "/predict", body, Origin=origin)[0] == 403
        assert ask(port, "GET", "/health", Origin=origin)[0] == 403
    assert ask(port, "GET", "/health", Origin=f"http://127.0.0.1:{port}")[0] == 200


def test_unknown_host_names(port):
    for host in ("evil.example", f"evil.example:{port}", "[", "127.0.0.1.evil.example", ""):
        assert ask(port, "GET", "/health", Host=host)[0] == 400
        with pytest.raises(refused, match="400"), live(port, additional_headers={"Host": host}):
            pass
    for host in ("localhost", f"localhost:{port}", f"[::1]:{port}"):
        assert ask(port, "GET", "/health", Host=host)[0] == 200


HALVES = [
    b"POST /pre",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX: y\r\n",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
]


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("half", HALVES)
def test_half_a_request_is_given_up(service, monkeypatch, half, answered):
    monkeypatch.setattr(service, "ARRIVAL", 30 if answered else 0.2)
    with (
        running(service, GatedModel()) as port,
        socket.create_connection(("127.0.0.1", port), timeout=30) as sender,
    ):
        if answered:  # a request before it
            sender.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sender.recv(1000).startswith(b"HTTP/1.1 200")
        monkeypatch.setattr(service, "ARRIVAL", 0.2)
        sender.sendall(half)
        with suppress(ConnectionResetError):
            while sender.recv(1000):  # until it is closed
                pass


def test_a_sender_of_nothing_is_given_up(service, monkeypatch):
    monkeypatch.setattr(service, "ARRIVAL", 0.2)
    with (
        running(service, GatedModel()) as port,
        socket.create_connection(("127.0.0.1", port), timeout=30) as sender,
        suppress(ConnectionResetError),
    ):
        assert sender.recv(1) == b""


def test_a_live_dialogue_is_a_request_that_has_arrived(service, monkeypatch):
    monkeypatch.setattr(service, "ARRIVAL", 0.3)
    with running(service, GatedModel()) as port, live(port) as socket_:
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            assert said(socket_, "hi")["label"] == "a"


def test_the_oldest_of_too_many_half_requests_goes_first(service, monkeypatch):
    monkeypatch.setattr(service, "MAX_UNFINISHED", 3)
    with running(service, GatedModel()) as port, ExitStack() as stack:
        senders = []
        for _ in range(4):
            address = ("127.0.0.1", port)
            senders.append(stack.enter_context(socket.create_connection(address, timeout=30)))
            senders[-1].sendall(b"GET /health HTTP/1.1\r\nHost: local")
        with suppress(ConnectionResetError):
            assert senders[0].recv(1) == b""
        for sender in senders[2:]:
            sender.sendall(b"host\r\nConnection: close\r\n\r\n")
            assert sender.recv(1000).startswith(b"HTTP/1.1 200")


def test_too_many_dialogues_and_silent_ones(service, monkeypatch):
    monkeypatch.setattr(service, "MAX_DIALOGUES", 2)
    model = GatedModel()
    with running(service, model) as port, live(port) as first, live(port) as second:
        assert said(first, "hi")["label"] == said(second, "hi")["label"] == "a"
        with live(port) as third, pytest.raises(closed, match="too many dialogues, try again"):
            third.recv(timeout=30)
        monkeypatch.setattr(service, "SILENCE", 0.01)
        said(first, "hi")
        with pytest.raises(closed, match="nothing was said for a while"):
            first.recv(timeout=30)
        assert said(second, "hi")["label"] == "a"


def test_the_script():
    classes = OnnxDialogueClassifier.load(STORED).classes_
    command = [sys.executable, SCRIPT, STORED, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        too_late = threading.Timer(60, process.kill)
        too_late.start()
        try:
            log = iter(process.stderr.readline, "")
            line = next(line for line in log if "running on" in line)
            port = int(line.split("127.0.0.1:")[1].split()[0])
            assert predicted(port, [UTTERANCE])[0]["label"] in classes
            loaded = Path(f"/proc/{process.pid}/maps")
            if loaded.exists():
                assert "libtorch" not in loaded.read_text()
        finally:
            process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        too_late.cancel()
    assert "Finished server process" in rest
    assert "Traceback" not in rest


@pytest.fixture
def page(port):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium-headless-shell")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_text("Connected.").wait_for()
        yield page
        browser.close()


def test_the_page(page, port, classifier):
    texts = ["My parcel is late.", "<b onclick=alert(1)>Thank</b> you <script>alert(2)</script>"]
    expected = classifier.predict([["a", text] for text in texts])
    for row, text in enumerate(texts):
        page.get_by_label("Utterance").fill(text)
        page.get_by_role("button", name="Send").click()
        item = page.locator("li").nth(row)
        item.locator(".scores").wait_for()
        assert item.locator(".text").inner_text() == text  # shown, not run
        assert item.locator(".label").inner_text() == expected[row]
        assert item.locator("meter").count() == len(classifier.classes_)
    page.get_by_role("button", name="Play an example").click()
    page.locator("li").nth(6).locator(".scores").wait_for()
    assert page.locator("li").count() == 7
    page.get_by_role("button", name="New dialogue").click()
    page.get_by_text("Connected.").wait_for()
    assert page.locator("li").count() == 0
    assert page.complaints == []
    # what is put into the page by whatever means does not run, and nothing else is asked
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=hacked()>')")
    page.evaluate("fetch('http://127.0.0.2:9/').catch(() => 0)")
    assert all("Content Security Policy" in text for text in page.complaints)
    assert page.complaints
