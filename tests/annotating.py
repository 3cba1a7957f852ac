"""Processes that annotate side by side, forked from one that has imported everything."""

import multiprocessing
from contextlib import contextmanager

import pandas as pd
from fake_llm import FakeLLM

from sklearn_dialpref import LLMAnnotator
from sklearn_dialpref.annotation import Prompt, PromptBank
from sklearn_dialpref.annotation.cache import AnswerCache

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["sklearn_dialpref.annotation", "aiolimiter", "jinja2.sandbox", "openai", "pandas"]
)
CONCURRENCY = 8
CLASSES = ["bad", "good"]


def utterances(n_rows, start=0):
    rows = range(start, start + n_rows)
    return pd.DataFrame(
        {
            "dialogue_id": [row // 5 for row in rows],
            "text": [f"That is {CLASSES[row % 2]}, number {row}." for row in rows],
        }
    )


def right(X):
    return [next(label for label in CLASSES if label in text) for text in X["text"]]


def bank(size=2, **options):
    """Prompts without context, as small as can be."""
    labels = "{% for l in labels %}\n{{ l.code }}: {{ l.name }}{% endfor %}\n"
    return PromptBank(
        [
            Prompt(f"{n}{labels}A speaker says: {{{{ utterance }}}}\n", CLASSES, **options)
            for n in range(size)
        ]
    )


def annotate(url, cache, n_rows, backwards=False, barrier=None, results=None):
    """Label so many utterances by two prompts; hand back usage, and whether all is right."""
    X = utterances(n_rows)
    X = X[::-1] if backwards else X
    teacher = LLMAnnotator(
        CLASSES, "tiny", prompts=bank(), base_url=url, cache=cache, concurrency=CONCURRENCY
    ).fit(X)
    if barrier is not None:
        barrier.wait()
    labels = teacher.predict(X).tolist()
    if results is not None:
        results.put((teacher.usage_, labels == right(X)))


@contextmanager
def running(*args, **options):
    """A process that annotates; killed in the end, if it still runs."""
    process = CONTEXT.Process(target=annotate, args=args, kwargs=options)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def share(cache, n_rows, latency=0.02):
    """Two processes label the same, from both ends; usages, and how often each was asked."""
    barrier, results = CONTEXT.Barrier(2), CONTEXT.SimpleQueue()
    with FakeLLM(latency=latency) as server:
        options = {"barrier": barrier, "results": results}
        with (
            running(server.base_url, cache, n_rows, False, **options),
            running(server.base_url, cache, n_rows, True, **options),
        ):
            outcomes = [results.get() for _ in range(2)]
        asked = server.asked
    assert all(all_right for _, all_right in outcomes)
    return [usage for usage, _ in outcomes], asked


def kill_at_random(cache, n_rows, kills, rng, latency=0.05):
    """Kill annotating processes one after the other; how often each question was asked.

    Returns also the sum over kills of the questions that were asked and had no stored answer.
    """
    under_way = 0
    with FakeLLM(latency=latency) as server:
        for _ in range(kills):
            until = sum(server.asked.values()) + rng.integers(0, 2 * n_rows // kills)
            with running(server.base_url, cache, n_rows) as process:
                while process.is_alive() and sum(server.asked.values()) <= until:
                    process.join(0.001)
            with AnswerCache(cache) as answers:
                not_stored = len(server.asked) - len(answers)
            assert 0 <= not_stored <= CONCURRENCY
            under_way += not_stored
        before = len(server.asked)
        annotate(server.base_url, cache, n_rows)
        return server.asked, before, under_way
