"""The example service under load, with senders that behave and others that do not.

    python -m benchmarks.service --seconds 60

Needs the extras serve and offline, and wrk (Debian: apt-get install wrk). On the loopback, all at
once: wrk posts one utterance again and again over some connections, live dialogues talk over
WebSockets, each waiting for its answer, and one sender goes through bad JSON, texts of 10 MB and
sockets that are dropped in the middle. Prints latencies, what the bad ones were answered, and the
server's memory, threads and open files at the beginning and at the end.
"""

import argparse
import asyncio
import json
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from websockets.asyncio.client import connect

from examples.serve_fastapi import demo_model
from sklearn_dialpref.datasets import load_support_chats

SCRIPT = Path(__file__).parent.parent / "examples" / "serve_fastapi.py"
POST = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"utterances": [{"text": "This is the second time, I am really annoyed!"}]}'
"""
BAD = {
    "no JSON": b"{'utterances': x}",
    "deep JSON": b"[" * 100_000,
    "no UTF-8": b'{"utterances": [{"text": "\xff"}]}',
    "too many utterances": json.dumps({"utterances": [{"text": "hi"}] * 201}).encode(),
    "10 MB of text": b'{"utterances": [{"text": "' + b"a" * 10_000_000 + b'"}]}',
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--connections", type=int, default=8, help="of wrk")
    parser.add_argument("--dialogues", type=int, default=50, help="live ones")
    return parser.parse_args()


async def live(port: int, texts: list[str], end: float) -> list[float]:
    """Milliseconds of each answer to a dialogue that goes on to the end."""
    took = []
    async with connect(f"ws://127.0.0.1:{port}/dialogue") as talk:
        while time.monotonic() < end:
            start = time.perf_counter()
            await talk.send(json.dumps({"text": texts[len(took) % len(texts)]}))
            assert "label" in json.loads(await talk.recv())
            took.append(1e3 * (time.perf_counter() - start))
    return took


async def misbehave(port: int, end: float) -> Counter:
    """How often what was answered."""
    answers: Counter = Counter()
    while time.monotonic() < end:
        for name, body in BAD.items():
            answers[name, await post(port, body)] += 1
        for start in (b"", b"POST /predict HTTP/1.1\r\nContent-Len", b"\x16\x03\x01\r\n\r\n"):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(start)
            writer.close()
            answers["dropped connection", "–"] += 1
        async with connect(f"ws://127.0.0.1:{port}/dialogue") as talk:
            await talk.send('{"text": "hi"}')
            drop(talk.transport.get_extra_info("socket"))
        answers["dropped dialogue", "–"] += 1
        await asyncio.sleep(0.05)
    return answers


async def post(port: int, body: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode())
    try:
        writer.write(body)  # an answer may come before all of it is sent
        line = await reader.readline()
        return line.split()[1].decode() if line else "closed"
    except ConnectionError:
        return "closed"
    finally:
        writer.close()


def drop(of_dialogue: socket.socket) -> None:
    """So that closing it says no goodbye."""
    of_dialogue.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def state(pid: int) -> dict[str, str]:
    folder = Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    return {
        "memory, MB": f"{int(status['VmRSS'].split()[0]) / 1024:.0f}",
        "threads": status["Threads"].strip(),
        "open files": str(len(list((folder / "fd").iterdir()))),
    }


async def load(port: int, pid: int, options: argparse.Namespace, script: str) -> None:
    texts = load_support_chats().X["text"].tolist()
    await asyncio.gather(*(live(port, texts, time.monotonic() + 5) for _ in range(10)))
    begun = state(pid)
    end = time.monotonic() + options.seconds
    wrk = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "--latency"),
        *("--timeout", "30s", "-s", script, f"http://127.0.0.1:{port}/predict"),
        stdout=subprocess.PIPE,
    )
    talks = [live(port, texts[at:] + texts[:at], end) for at in range(options.dialogues)]
    *took, answers = await asyncio.gather(*talks, misbehave(port, end))
    output, _ = await wrk.communicate()
    await asyncio.sleep(1)
    ended = state(pid)
    print("```\n" + output.decode().strip() + "\n```\n")
    p50, p95, p99 = np.percentile(np.concatenate(took), [50, 95, 99])
    print(
        f"{options.dialogues} live dialogues, {sum(map(len, took))} utterances: p50 {p50:.1f}, "
        f"p95 {p95:.1f}, p99 {p99:.1f} ms\n"
    )
    print("| sent | answered | times |\n|---|---|---|")
    for (name, answer), times in sorted(answers.items()):
        print(f"| {name} | {answer} | {times} |")
    print("\n| server | before | after |\n|---|---|---|")
    for name in begun:
        print(f"| {name} | {begun[name]} | {ended[name]} |")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    print(f"\nhealth after that: {(await reader.readline()).decode().strip()}")
    writer.close()


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        demo_model(folder)
        script, log = Path(folder) / "post.lua", Path(folder) / "server.log"
        script.write_text(POST)
        command = [sys.executable, SCRIPT, f"{folder}/model", "--port", "0"]
        # not a pipe: when nobody reads it, it is full one day, and the server waits
        with open(log, "w") as to_log, subprocess.Popen(command, stderr=to_log) as server:
            try:
                while not (
                    found := re.search(r"running on http://127.0.0.1:(\d+)", log.read_text())
                ):
                    time.sleep(0.1)
                asyncio.run(load(int(found[1]), server.pid, options, str(script)))
                if server.poll() is not None:
                    print("the server has ended")
            finally:
                server.terminate()
        print(f"\ntracebacks in its log: {log.read_text().count('Traceback')}")


if __name__ == "__main__":
    main()
