"""Many models behind the example service, each by its name, and loaded again while it serves."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
    started,
)

from sklearn_dialpref import OnnxDialogueClassifier
from sklearn_dialpref._labels.fitted import FittedLabels

STORED = Path(__file__).parent / "stored" / "format_1_onnx_int8"
UTTERANCE = {"text": "hi"}
BODY = json.dumps({"utterances": [UTTERANCE]})


class Acts(GatedModel):
    """Of other classes than a GatedModel; ``rows`` are the texts in their order."""

    fitted_labels_ = FittedLabels(np.array(["x", "y", "z"]), False, None, {}, 2)

    def __init__(self, closed=False):
        super().__init__(closed)
        self.rows = []

    def _logits_from_texts(self, texts, index, keep=True):
        self.rows += [texts[row[0]] for row in index]
        logits = super()._logits_from_texts(texts, index, keep)
        return np.column_stack([logits, np.zeros(len(logits))])


@pytest.fixture(scope="module")
def service():
    return load_service()


@pytest.fixture
def models():
    return {"mood": GatedModel(), "acts": Acts()}


@pytest.fixture
def port(service, models):
    with running(service, loaders_of(models)) as port:
        yield port


def loaders_of(models):
    return {name: lambda name=name: models[name] for name in models}


def classes(answer):
    return list(answer["scores"])


# -- by name --------------------------------------------------------------------------------------


def test_each_model_answers_by_its_name(port):
    paths = {"": "ab", "/models/mood": "ab", "/models/acts": "xyz"}
    for path, expected in paths.items():
        (answer,) = predicted(port, [UTTERANCE], f"{path}/predict")
        assert classes(answer) == list(expected)
        with live(port, f"{path}/dialogue") as socket:
            assert classes(said(socket, "hi")) == list(expected)
        status, text = ask(port, "GET", f"{path}/health")
        assert (status, json.loads(text)) == (200, {"status": "ok", "classes": list(expected)})
    assert json.loads(ask(port, "GET", "/models")[1]) == {
        "default": "mood",
        "models": {"mood": {"classes": ["a", "b"]}, "acts": {"classes": ["x", "y", "z"]}},
    }


def test_an_unknown_name(port):
    text = '{"error":"no such model; there are: mood, acts"}'
    for name in ("nothing", "4929-1234", "%22", "Mood", "mood%00", "..", "é".encode().hex()):
        assert ask(port, "POST", f"/models/{name}/predict", BODY) == (404, text)
        assert ask(port, "GET", f"/models/{name}/health") == (404, text)
        with pytest.raises(refused, match="404"), live(port, f"/models/{name}/dialogue"):
            pass
    for path in ("/models/mood", "/models//predict", "/models/a/b/predict"):
        assert ask(port, "POST", path, BODY)[0] in (404, 405)
    assert metric(port, "dialpref_refused_total", model="", why="request") >= 21
    assert metric(port, "dialpref_refused_total", model="mood") == 0
    assert predicted(port, [UTTERANCE])


def test_pages_of_other_sites_and_unknown_hosts_for_each_model(port):
    for name in ("mood", "acts"):
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            status = 403 if "Origin" in headers else 400
            assert ask(port, "POST", f"/models/{name}/predict", BODY, **headers)[0] == status
        with (
            pytest.raises(refused, match="403"),
            live(port, f"/models/{name}/dialogue", origin="http://evil.example"),
        ):
            pass


def test_metrics_of_each_model(port):
    predicted(port, [UTTERANCE] * 3)
    predicted(port, [UTTERANCE] * 4, "/models/acts/predict")
    assert metric(port, "dialpref_seconds_count", model="mood") == 3
    assert metric(port, "dialpref_labels_total", model="acts") == 4
    assert ask(port, "POST", "/models/acts/predict", "{}")[0] == 422
    assert metric(port, "dialpref_refused_total", model="acts", why="input") == 1
    with live(port, "/models/acts/dialogue") as socket:
        said(socket, "hi")
        assert metric(port, "dialpref_open_dialogues", model="acts") == 1
        assert metric(port, "dialpref_open_dialogues", model="mood") == 0
    until(lambda: metric(port, "dialpref_open_dialogues") == 0)


def test_a_model_that_fails_leaves_the_others(port, models):
    models["acts"].broken = True
    assert ask(port, "POST", "/models/acts/predict", BODY)[0] == 500
    assert ask(port, "GET", "/models/acts/health")[0] == 503
    assert ask(port, "GET", "/health")[0] == 503
    assert ask(port, "GET", "/models/mood/health")[0] == 200
    assert metric(port, "dialpref_refused_total", model="acts", why="model") == 1
    assert predicted(port, [UTTERANCE])[0]["label"] == "a"


def test_models_share_the_room_for_dialogues(service, models, monkeypatch):
    monkeypatch.setattr(service, "MAX_DIALOGUES", 2)
    with running(service, loaders_of(models)) as port, ExitStack() as stack:
        for path in ("/dialogue", "/models/acts/dialogue"):
            said(stack.enter_context(live(port, path)), "hi")
        for path in ("/dialogue", "/models/acts/dialogue"):
            with live(port, path) as socket, pytest.raises(closed, match="too many dialogues"):
                socket.recv(timeout=30)


def test_models_share_the_room_for_characters_and_utterances(service):
    models = {"mood": GatedModel(closed=True), "acts": Acts()}
    large = json.dumps({"utterances": [{"text": "a" * 1_000}] * 40})
    with running(service, loaders_of(models)) as port, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, port, "POST", "/predict", large)
        until(lambda: models["mood"].sizes)
        assert ask(port, "POST", "/models/acts/predict", large)[0] == 503
        models["mood"].open()
        assert first.result()[0] == 200
        assert ask(port, "POST", "/models/acts/predict", large)[0] == 200


def test_a_large_request_does_not_hold_up_a_live_dialogue(service):
    model = Acts(closed=True)
    body = json.dumps({"utterances": [{"text": f"flood {at}"} for at in range(200)]})
    with running(service, model) as port, ThreadPoolExecutor(1) as pool, live(port) as socket:
        first = pool.submit(ask, port, "POST", "/predict", body)
        until(lambda: metric(port, "dialpref_waiting") > 100)
        socket.send(json.dumps({"text": "live"}))
        until(lambda: len(model.rows) + metric(port, "dialpref_waiting") == 201)
        model.open()
        assert json.loads(socket.recv(timeout=30))["label"] == "x"
        assert first.result()[0] == 200
    assert model.rows.index("live") <= 64  # two batches


# -- loaded again -------------------------------------------------------------------------------


def test_a_dialogue_goes_on_when_its_model_is_loaded_again(service):
    models = {"mood": GatedModel(), "acts": Acts()}
    with started(service, loaders_of(models)) as (app, port), live(port) as socket:
        assert classes(said(socket, "hi")) == ["a", "b"]
        models["mood"] = Acts()
        asyncio.run(app.state.service.models["mood"].reload())
        assert classes(said(socket, "hello")) == ["x", "y", "z"]
        assert classes(predicted(port, [UTTERANCE])[0]) == ["x", "y", "z"]
        assert json.loads(ask(port, "GET", "/health")[1])["classes"] == ["x", "y", "z"]


def test_names_of_folders(service):
    by_name = service.by_name
    assert by_name([]) == {}
    assert by_name(["folder"]) == {"default": "folder"}
    assert by_name(["./lr=0.1"]) == {"default": "./lr=0.1"}
    assert by_name(["mood=a/b", "acts=/c=d"]) == {"mood": "a/b", "acts": "/c=d"}
    for wrong in (["a", "b"], ["mood=a", "b"], ["mood=a", "mood=b"], ["=a", "b=c"], ["a=", "b=c"]):
        with pytest.raises(SystemExit, match="each of several folders a name of its own"):
            by_name(wrong)


@contextmanager
def script(*arguments):
    """The process, its port, and the lines of its log."""
    command = [sys.executable, SCRIPT, *arguments, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        too_late = threading.Timer(60, process.kill)
        too_late.start()
        try:
            log = iter(process.stderr.readline, "")
            line = next(line for line in log if "running on" in line)
            yield process, int(line.split("127.0.0.1:")[1].split()[0]), log
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            too_late.cancel()
    assert "Finished server process" in rest
    assert "Traceback" not in rest


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_folders_are_loaded_again_at_a_signal(tmp_path):
    names = ("mood", "acts")
    for name in names:
        shutil.copytree(STORED, tmp_path / name)
    weights = tmp_path / "acts" / "model.onnx"
    whole = weights.read_bytes()
    with script(*(f"{name}={tmp_path / name}" for name in names)) as (process, port, log):
        expected = OnnxDialogueClassifier.load(STORED).classes_.tolist()
        with live(port, "/models/acts/dialogue") as socket:
            assert classes(said(socket, "hi")) == expected
            for damaged in (True, False):
                weights.write_bytes(whole[:-100] if damaged else whole)
                process.send_signal(signal.SIGHUP)
                told = [next(line for line in log if f"the model {one}" in line) for one in names]
                assert "mood was loaded again" in told[0]
                assert ("acts stays" if damaged else "acts was loaded again") in told[1]
                assert "Traceback" not in told[1]
                assert classes(said(socket, "hi")) == expected
        assert predicted(port, [UTTERANCE], "/models/mood/predict")
