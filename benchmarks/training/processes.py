"""Fine-tuning with one and with two processes of ``accelerate``, one thread each.

They are started by torch's launcher, as ``accelerate launch`` does. One epoch on the human labels
of MELD's first training dialogues. The seed is the same, so that the weights should be, but for
rounding.
"""

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from .measured import Measured, Memory, printed, watch
from .report import memory_cells, table

__all__ = ["TITLE", "add_options", "run"]

TITLE = "One and two processes"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")


def run(options: argparse.Namespace) -> str:
    rows, weights, alone = [], [], None
    for n in options.processes:
        file = options.work / f"weights_{n}.npy"
        result, memory = _launched(n, file, options)
        weights.append(np.load(file))
        alone = alone or result["seconds"]
        rows.append(_row(n, result, memory, alone, np.abs(weights[-1] - weights[0]).max()))
    return table(rows)


def _launched(n: int, file: Path, options: argparse.Namespace) -> tuple[dict, Memory]:
    job = {
        "folder": str(options.data_dir),
        "rows": options.rows,
        "encoder": options.encoder,
        "weights": str(file),
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += [f"--nproc-per-node={n}", "-m", __name__, json.dumps(job)]
    return watch(launch, options.threads)


def _row(n: int, result: dict, memory: Memory, alone: float, difference: float) -> dict[str, str]:
    seconds = result["seconds"]
    return {
        "processes": str(n),
        "seconds": f"{seconds:.1f}",
        "utterances per second": f"{result['rows'] / seconds:.0f}",
        "against one": f"{alone / seconds:.2f}",
        "largest difference of a weight": f"{difference:.1e}",
        **memory_cells(Measured(result, memory)),
    }


# -- in each process --------------------------------------------------------------------------


def fit(folder: str, rows: int, encoder: str, weights: str) -> None:
    from accelerate import Accelerator

    from sklearn_dialpref import DialoguePreferenceClassifier

    from .counts import import_all
    from .encoder import meld_rows

    import_all()
    X, human, _ = meld_rows(folder, rows, tuned=True)
    accelerator = Accelerator(cpu=True)
    clf = DialoguePreferenceClassifier(
        encoder, trainable_layers=None, max_epochs=1, accelerator=accelerator, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        clf.fit(X, human)
        seconds = time.perf_counter() - start
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state = clf.net_.module_.state_dict()
        np.save(
            weights, np.concatenate([value.float().numpy().ravel() for value in state.values()])
        )
        printed({"seconds": seconds, "rows": rows, "processes": accelerator.num_processes})
    accelerator.end_training()


if __name__ == "__main__":
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    fit(**json.loads(sys.argv[1]))
