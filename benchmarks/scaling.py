"""Time and memory of a fit on ready-made features, by the number of utterances.

    python benchmarks/scaling.py

Each size runs in a process of its own: seconds of ``fit``, and how far it raised the process's
peak of resident memory above what the data and the imports took.  Default epochs; 384 features,
dialogues of 10 utterances, and one dialogue of 5,000.
"""

import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd

CASES = [(12_500, 10), (25_000, 10), (50_000, 10), (100_000, 10), (5_000, 5_000)]


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(n_rows: int, length: int) -> None:
    from sklearn_dialpref import DialoguePreferenceClassifier, _net  # noqa: F401

    # made in float32 at once: a larger copy would raise the peak that the fit is measured from
    features = np.random.default_rng(0).standard_normal((n_rows, 384), dtype=np.float32)
    truth = features[:, :3].argmax(axis=1)
    X = pd.DataFrame(features).rename(columns=str).assign(dialogue_id=np.arange(n_rows) // length)
    y_human = np.where(np.arange(n_rows) < 100, truth, None)
    before = peak_mb()
    start = time.perf_counter()
    DialoguePreferenceClassifier("precomputed", random_state=0).fit(X, y_human, truth)
    print(f"{time.perf_counter() - start:.1f} {peak_mb() - before:.0f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]), int(sys.argv[2]))
    else:
        print("| utterances | in dialogues of | seconds | extra MB |\n|---|---|---|---|")
        for n_rows, length in CASES:
            command = [sys.executable, __file__, str(n_rows), str(length)]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(f"| {n_rows} | {length} | {' | '.join(found.split())} |", flush=True)
