"""Training at scale: seconds and memory by size, against the bare encoder and other trainers.

    python -m benchmarks.training PART --data-dir DIR

From the repository root. Each part replaces its section of benchmarks/results/training.md; each
row of a table runs in a process of its own.
"""

import argparse
from pathlib import Path

from benchmarks.evidence.data import add_data_option

from . import encoder, grid, memory, others, processes, sizes
from .report import write_section

PARTS = {
    "encoder": encoder,
    "sizes": sizes,
    "memory": memory,
    "grid": grid,
    "others": others,
    "processes": processes,
}
# the other parts use MELD
OWN_TABLES = {"sizes": ("sgd", "swda"), "grid": ("sgd", "swda")}
RESULTS = Path(__file__).parents[1] / "results" / "training.md"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=__doc__.splitlines()[0]
    )
    parts = parser.add_subparsers(dest="part", required=True)
    for name, module in PARTS.items():
        part = parts.add_parser(name, help=module.TITLE, description=module.__doc__)
        add_data_option(part, without_fetcher=OWN_TABLES.get(name, ()))
        part.add_argument("--threads", type=int, default=1, help="of each process")
        part.add_argument("--work", type=Path, default=Path("build/training"))
        part.add_argument("--results", type=Path, default=RESULTS)
        module.add_options(part)
    return parser.parse_args()


def main() -> None:
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    options.work, options.data_dir = options.work.resolve(), options.data_dir.resolve()
    module = PARTS[options.part]
    text = module.run(options)
    about = " ".join((module.__doc__ or "").replace("``", "`").split())
    section = f"{about}\n\n{text}"
    write_section(options.results, [part.TITLE for part in PARTS.values()], module.TITLE, section)
    print(section)


if __name__ == "__main__":
    main()
