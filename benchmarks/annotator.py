"""Speed and accuracy of the annotator, with a local server that delays and bills its answers.

Measures the throughput against the ideal (calls x latency / concurrency), a pass over cached
answers, the cost estimate against the bill, and a pass with a server that fails in eight ways. The
server is ``tests/fake_llm.py``, in its own process where time is measured.

    python benchmarks/annotator.py
"""

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from sklearn_dialpref import LLMAnnotator

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))
from fake_llm import FakeLLM  # noqa: E402

CLASSES = ["negative", "neutral", "positive"]


def utterances(n_rows: int) -> pd.DataFrame:
    """Dialogues of ten utterances that name their own label."""
    words = np.random.default_rng(0).choice(CLASSES, n_rows)
    text = [f"Well, that sounds {word} to me, number {row}." for row, word in enumerate(words)]
    return pd.DataFrame({"dialogue_id": np.arange(n_rows) // 10, "text": text, "label": words})


def throughput(calls: int, latency: float, concurrency: int) -> str:
    """Time a pass of eight prompts over ``calls / 8`` utterances."""
    command = [sys.executable, str(TESTS / "fake_llm.py"), "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            X = utterances(calls // 8)
            teacher = LLMAnnotator(
                CLASSES, "tiny", base_url=url, concurrency=concurrency, cache=None
            ).fit(X)
            teacher.predict(X[:40])  # connections, imports
            start = time.perf_counter()
            accuracy = teacher.score(X, X["label"])
            seconds = time.perf_counter() - start
            asked = teacher.usage_["calls"]
        finally:
            server.kill()
    ideal = asked * latency / concurrency
    return (
        f"{asked} calls in {seconds:.2f} s, ideal {ideal:.2f} s: {ideal / seconds:.1%} "
        f"(accuracy {accuracy:.2f})"
    )


async def always_first(messages):
    return "A"


def cached_pass(answers: int) -> str:
    """Time a pass with all answers cached, and by how much it raises the process's peak memory."""
    X = utterances(answers // 8)
    always_first.name = "always A"
    with tempfile.TemporaryDirectory() as folder:
        options = {"model": always_first, "cache": Path(folder) / "answers.sqlite"}
        codes = LLMAnnotator(CLASSES, scoring="samples", n_samples=1, **options).fit(X)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "A" is not a code in some prompts
            codes.predict(X)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            start = time.perf_counter()
            codes.predict(X)
            seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        usage = codes.usage_
    return (
        f"{usage['cached']} answers, {usage['calls']} calls: {seconds:.1f} s, peak memory "
        f"+{(after - before) / 1024:.0f} MB"
    )


def estimate(token_bytes: int) -> str:
    """Error of the cost estimate before any request, and after five utterances."""
    X, probe = utterances(200), utterances(5)
    probe["dialogue_id"] = "probe"
    with FakeLLM(token_bytes=token_bytes) as server:
        teacher = LLMAnnotator(
            CLASSES, "tiny", base_url=server.base_url, cache=None, prices=(0.15, 0.6)
        ).fit(X)
        first = teacher.estimate_cost(X).cost
        teacher.predict(probe)
        second = teacher.estimate_cost(X).cost
        before = server.tokens_in, server.tokens_out
        teacher.predict(X)
        bill = (
            (server.tokens_in - before[0]) * 0.15 + (server.tokens_out - before[1]) * 0.6
        ) / 1e6
    return f"unseen {first / bill - 1:+.1%}, after 40 answers {second / bill - 1:+.1%}"


def faults(share: float) -> str:
    X = utterances(250)
    with FakeLLM(faults=share, hang=10.0) as server:
        teacher = LLMAnnotator(
            CLASSES, "tiny", base_url=server.base_url, cache=None, timeout=1.0, concurrency=32
        ).fit(X)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            accuracy = teacher.score(X, X["label"])
        faulted = sum(count for kind, count in server.faulted.items() if kind)
        total = sum(server.faulted.values())
    lost = int(np.isnan(teacher.scores_[:, :, 0]).all(axis=1).sum())
    reasons = pd.Series([f["reason"] for f in teacher.failures_]).value_counts().to_dict()
    return (
        f"{faulted} of {total} requests failed; {lost} of {len(X)} utterances without an answer, "
        f"{accuracy:.1%} right; of 2000 answers lost: {reasons}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| measurement | result |\n|---|---|")
    for _ in range(options.repeats):
        print(f"| throughput, 50 ms, 32 concurrent | {throughput(options.calls, 0.05, 32)} |")
    print(f"| all answers cached | {cached_pass(options.answers)} |", flush=True)
    for token_bytes in (3, 4, 5):
        print(
            f"| cost estimate, {token_bytes}-byte tokens | {estimate(token_bytes)} |",
            flush=True,
        )
    print(f"| faulty server, 30 % of requests | {faults(0.3)} |")
    print(f"\n{platform.processor() or platform.machine()}, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
