"""Compare this package with what people do, on tasks of every shape.

    python -m benchmarks.tasks --data-dir DIR

From the repository root. Votes are simulated, as wrong as real LLMs were on other data; those of
the task "context" are real. Writes a Markdown table for each task as it ends.
"""

import argparse
import platform
import time
from pathlib import Path

import torch

from benchmarks.evidence.data import add_data_option

from .data import TASKS
from .report import profile_table, task_table, votes_table
from .run import results
from .simulated import Simulator, measured_profiles, typical_profile


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tasks", description=__doc__.splitlines()[0]
    )
    add_data_option(parser, without_fetcher=("casino", "sgd", "swda"))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--budgets", nargs="+", type=int, default=[100, 400, 1600])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tasks"))
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    measured = measured_profiles(options.data_dir)
    machine = f"{platform.processor() or platform.machine()}, {time.strftime('%Y-%m-%d')}"
    (options.out / "simulated_votes.md").write_text(profile_table(measured, machine))
    for name in options.tasks:
        simulator = Simulator(typical_profile(measured))
        problem = TASKS[name](options.data_dir, simulator)
        fits = list(results(problem, options.budgets, options.seeds))
        text = task_table(problem, fits, machine) + votes_table(simulator)
        (options.out / f"{name}.md").write_text(text)
        print(text, flush=True)


if __name__ == "__main__":
    main()
