"""Time and memory of a fit on precomputed features, by number of utterances and classes.

    python benchmarks/scaling.py

Each size runs in its own process. The table has the seconds of ``fit``, the increase of the
process's peak resident memory over the data and the imports, and that peak. Fits use the default
epochs, 384 features, 1,000 human labels, LLM labels for all rows, and dialogues of 10 utterances
or a single one of 5,000.
"""

import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd

CASES = [
    *((n_rows, 10, 3) for n_rows in (12_500, 25_000, 50_000, 100_000)),
    *((n_rows, 10, 138) for n_rows in (12_500, 25_000, 50_000, 100_000)),
    (100_000, 10, 41),
    (5_000, 5_000, 3),
]


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(n_rows: int, length: int, n_classes: int) -> None:
    from sklearn_dialpref import DialoguePreferenceClassifier
    from sklearn_dialpref._training import net  # noqa: F401, so that torch counts as an import

    # created directly in float32: a larger copy would raise the peak before the fit
    features = np.random.default_rng(0).standard_normal((n_rows, 384), dtype=np.float32)
    truth = features[:, :n_classes].argmax(axis=1)
    X = pd.DataFrame(features).rename(columns=str).assign(dialogue_id=np.arange(n_rows) // length)
    y_human = np.where(np.arange(n_rows) < 1000, truth, None)
    before = peak_mb()
    start = time.perf_counter()
    DialoguePreferenceClassifier("precomputed", random_state=0).fit(X, y_human, truth)
    print(f"{time.perf_counter() - start:.1f} {peak_mb() - before:.0f} {peak_mb():.0f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(*map(int, sys.argv[1:]))
    else:
        print("| utterances | per dialogue | classes | seconds | extra MB | peak MB |")
        print("|---|---|---|---|---|---|")
        for case in CASES:
            numbers = [str(number) for number in case]
            command = [sys.executable, __file__, *numbers]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(f"| {' | '.join([*numbers, *printed.split()])} |", flush=True)
