"""Run a measurement in a process of its own, and watch the memory of it and its children."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["Memory", "measure", "printed", "watch"]

LEAST_PAUSE = 0.1  # seconds between two looks
PAUSE_PER_LOOK = 30  # a look at gigabytes takes milliseconds, in which the process may wait


@dataclass
class Memory:
    """Peaks of a process and its descendants, in megabytes.

    Attributes
    ----------
    resident : float
        Highest resident memory of any of the processes, by the kernel's own count; pages of
        mapped files count.
    proportional : float
        Highest sum over the processes, a page that n of them share counting as a n-th.
    anonymous : float
        Highest sum of the pages that no file stands behind: what cannot be dropped.
    """

    resident: float = 0.0
    proportional: float = 0.0
    anonymous: float = 0.0

    def look(self, pid: int) -> None:
        proportional = anonymous = 0.0
        for process in _descendants(pid):
            shares = _fields(Path(f"/proc/{process}/smaps_rollup"))
            proportional += shares.get("Pss", 0.0)
            anonymous += shares.get("Anonymous", 0.0)
            peak = _fields(Path(f"/proc/{process}/status")).get("VmHWM", 0.0)
            self.resident = max(self.resident, peak)
        self.proportional = max(self.proportional, proportional)
        self.anonymous = max(self.anonymous, anonymous)


@dataclass
class Measured:
    """What a measurement returned, and its memory."""

    result: dict[str, Any]
    memory: Memory = field(default_factory=Memory)


def measure(
    call: str,
    *,
    threads: int = 1,
    launch: Sequence[str] = (sys.executable,),
    **arguments: Any,
) -> Measured:
    """Call a function in a new process.

    Parameters
    ----------
    call : str
        ``module:function``; it returns a dict that JSON can hold.
    threads : int, default=1
    launch : sequence of str
        What comes before ``-m benchmarks.training.measured`` in the command.
    **arguments
        Of the function; they have to go through JSON.

    Returns
    -------
    Measured
    """
    command = [*launch, "-m", __name__, call, json.dumps(arguments, default=str)]
    result, memory = watch(command, threads)
    return Measured(result, memory)


def watch(command: Sequence[str], threads: int) -> tuple[dict[str, Any], Memory]:
    """Run a command whose last line of output is JSON; that, and its memory."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    memory = Memory()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        running = subprocess.Popen(list(command), stdout=out, stderr=errors, env=environment)
        while running.poll() is None:
            start = time.perf_counter()
            memory.look(running.pid)
            took = time.perf_counter() - start
            time.sleep(max(LEAST_PAUSE, PAUSE_PER_LOOK * took))
        out.seek(0)
        errors.seek(0)
        if running.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{errors.read()[-5000:]}")
        return json.loads(out.read().strip().splitlines()[-1]), memory


def printed(result: dict[str, Any]) -> None:
    """Hand a result to the process that waits for it."""
    own_peak = _fields(Path("/proc/self/status"))["VmHWM"]
    print(json.dumps({**result, "peak": own_peak}), flush=True)


def _descendants(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            own = children.read_text().split()
        except OSError:  # the thread has ended
            continue
        for child in own:
            yield from _descendants(int(child))


def _fields(file: Path) -> dict[str, float]:
    """The lines ``Name: n kB`` of a file of /proc, in megabytes; none of a process that ended."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    split = [line.split() for line in lines if line.endswith(" kB")]
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in split if len(words) == 3}


def main() -> None:
    call, arguments = sys.argv[1:]
    module, function = call.split(":")
    printed(getattr(import_module(module), function)(**json.loads(arguments)))


if __name__ == "__main__":
    main()
