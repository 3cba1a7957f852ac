"""Compare this package with common alternatives, on data with real LLM labels.

    python -m benchmarks.evidence
    python -m benchmarks.evidence --data FILE.parquet --human COLUMN --llm COLUMN COLUMN

Run it from the repository root. Each result is appended to a CSV file when it is ready, and is not
computed again, so you can interrupt and resume a run.
"""

import argparse
import signal
import sys
from pathlib import Path

from .data import TASKS, Task, add_data_option, load_split
from .intervals import Truth
from .report import write_report
from .run import METHODS, plan, run_jobs


def budget(text: str) -> int | str:
    return text if text == "all" else int(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence", description=__doc__.splitlines()[0]
    )
    source = parser.add_mutually_exclusive_group()
    add_data_option(source)
    source.add_argument("--data", type=Path, help="another file, with --human and --llm")
    parser.add_argument("--human", help="its column of human labels")
    parser.add_argument("--llm", nargs="+", help="its columns of LLM labels")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    parser.add_argument("--student", choices=list(METHODS), default="frozen")
    parser.add_argument(
        "--budgets", type=budget, nargs="+", default=[25, 50, 100, 200, 400, "all"]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument(
        "--methods", nargs="+", help="by default all; ablations run at 100 labels only"
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--intervals",
        action="store_true",
        help="rerun jobs that have a result but no stored predictions",
    )
    parser.add_argument(
        "--report-only", action="store_true", help="only report the existing results"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evidence"))
    options = parser.parse_args()
    if options.data and not (options.human and options.llm):
        parser.error("--data needs --human COLUMN and --llm COLUMN [COLUMN …]")
    known = METHODS[options.student]
    unknown = [name for name in options.methods or [] if name not in known]
    if unknown:
        parser.error(f"unknown methods {unknown} of the {options.student} student: {list(known)}")
    return options


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # cleans up, as Ctrl-C does
    options = parse()
    if options.data:
        name = f"{options.data.stem}_{options.human}"
        tasks = [Task(name, options.data.name, options.human, tuple(options.llm))]
        folder = options.data.parent
    else:
        tasks = [TASKS[name] for name in options.tasks]
        folder = options.data_dir
    csv_path = options.out / f"cells_{options.part}.csv"
    if not options.report_only:
        jobs = plan(
            tasks,
            folder.resolve(),
            options.part,
            options.student,
            options.budgets,
            options.seeds,
            options.methods,
        )
        run_jobs(jobs, csv_path, options.jobs, options.intervals)
    splits = (load_split(task, folder.resolve(), options.part) for task in tasks)
    truth = {split.name: Truth.of(split) for split in splits}
    print(write_report(csv_path, options.student, truth))


if __name__ == "__main__":
    main()
