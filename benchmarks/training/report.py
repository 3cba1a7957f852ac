"""The file of results: one section for each part."""

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from .measured import Measured

__all__ = ["memory_cells", "table", "write_section"]

HEAD = "# Training\n\n`python -m benchmarks.training PART --data-dir DIR`\n"


def write_section(path: Path, titles: Sequence[str], title: str, text: str) -> None:
    """Replace a section of the file, or add it in the order of ``titles``."""
    old = path.read_text(encoding="utf-8") if path.exists() else HEAD
    head, *sections = old.split("\n## ")
    by_title = dict(section.split("\n", 1) for section in sections)
    by_title[title] = f"\n{text.strip()}\n\n{machine()}\n"
    order = [one for one in titles if one in by_title]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n## ".join([head, *(f"{one}\n{by_title[one]}" for one in order)]))


def machine() -> str:
    """Processor and date."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    name = names[0] if names else platform.machine()
    return f"{len(names)} cores, {name}, {time.strftime('%Y-%m-%d')}."


def table(rows: Sequence[Mapping[str, object]]) -> str:
    return pd.DataFrame(rows).fillna("").to_markdown(index=False, disable_numparse=True)


def memory_cells(measured: Measured) -> dict[str, str]:
    """Peaks of all processes of a measurement, in megabytes."""
    memory = measured.memory
    resident = max(memory.resident, measured.result["peak"])
    return {
        "peak MB": f"{resident:.0f}",
        "PSS MB": f"{memory.proportional:.0f}",
        "anonymous MB": f"{memory.anonymous:.0f}",
    }
