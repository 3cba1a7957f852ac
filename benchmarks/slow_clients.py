"""The example service while many senders stop in the middle of their requests.

    python -m benchmarks.slow_clients --senders 2000

Needs the extras serve and offline. On the loopback, that many connections each send half of a
request, of every kind in turn, and open anew when they are given up. Meanwhile another process
asks for the health again and again. Prints how long the answers took, and the server's memory.
"""

import argparse
import asyncio
import contextlib
import re
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.service import SCRIPT, state
from examples.serve_fastapi import demo_model

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
HALVES = [
    b"",
    b"GET /hea",
    HEAD + b"X-Long: " + b"x" * 15_000,
    HEAD + b"Content-Length: 200000\r\n\r\n" + b"{" * 60_000,
]
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--senders", type=int, default=2_000)
    parser.add_argument("--seconds", type=int, default=30)
    return parser.parse_args()


def send_halves(port: int, n_senders: int, end: float) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(
            *(dawdle(port, HALVES[at % len(HALVES)], end) for at in range(n_senders))
        )

    asyncio.run(all_of_them())


async def dawdle(port: int, half: bytes, end: float) -> None:
    while time.monotonic() < end:
        with contextlib.suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(half)
                async with asyncio.timeout(max(0, end - time.monotonic())):
                    await reader.read()
            except TimeoutError:
                pass
            finally:
                writer.close()
        await asyncio.sleep(1)


async def ask(port: int, end: float, statuses: list[str]) -> list[float]:
    """Seconds of each answer."""
    took = []
    while time.monotonic() < end:
        start = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEALTH)
            line = await reader.readline()
            statuses.append(line.split()[1].decode() if line else "closed")
            writer.close()
        except ConnectionError:
            statuses.append("closed")
        took.append(time.perf_counter() - start)
        await asyncio.sleep(0.1)
    return took


async def load(port: int, pid: int, options: argparse.Namespace) -> None:
    await ask(port, time.monotonic() + 2, [])
    before, peak, statuses = state(pid), {}, []
    end = time.monotonic() + options.seconds
    senders = get_context("spawn").Process(target=send_halves, args=(port, options.senders, end))
    senders.start()
    asking = asyncio.create_task(ask(port, end, statuses))
    while time.monotonic() < end:
        await asyncio.sleep(0.5)
        now = state(pid)
        peak = {name: max(peak.get(name, "0"), value, key=float) for name, value in now.items()}
    took = await asking
    senders.join()
    await asyncio.sleep(1)
    after = state(pid)
    p50, p99, longest = 1e3 * np.array([*np.percentile(took, [50, 99]), max(took)])
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    print(
        f"{options.senders} senders for {options.seconds} s\n\n"
        f"health: {counts}; p50 {p50:.0f}, p99 {p99:.0f}, longest {longest:.0f} ms\n\n"
        "| server | before | peak | after |\n|---|---|---|---|"
    )
    for name in before:
        print(f"| {name} | {before[name]} | {peak[name]} | {after[name]} |")


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        demo_model(folder)
        log = Path(folder) / "server.log"
        command = [sys.executable, SCRIPT, f"{folder}/model", "--port", "0"]
        with open(log, "w") as to_log, subprocess.Popen(command, stderr=to_log) as server:
            try:
                while not (found := re.search(r"http://127.0.0.1:(\d+)", log.read_text())):
                    time.sleep(0.1)
                asyncio.run(load(int(found[1]), server.pid, options))
            finally:
                server.terminate()
        print(f"\ntracebacks in its log: {log.read_text().count('Traceback')}")


if __name__ == "__main__":
    main()
