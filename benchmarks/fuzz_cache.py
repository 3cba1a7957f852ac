"""Damage the annotator's cache in many ways, and see what a pass over it makes of that.

Each mutant of a cache has to be refused with a clear error, or give the identical answers, or lose
some, say so, and ask for them again; within a second. The table shows what happened to how many;
the exit status is 1 if something else did.

    python benchmarks/fuzz_cache.py --mutants 3000 --seed 0
"""

import argparse
import json
import platform
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from sklearn_dialpref import LLMAnnotator
from sklearn_dialpref.annotation import Completion, Prompt, PromptBank

CLASSES = ["no", "yes"]
N_ROWS = 40
REFUSED, IDENTICAL = "refused", "identical answers"
LOST = "lost some, said so, asked again"
FINE = (REFUSED, IDENTICAL, LOST)
LIES = (
    '{"texts": ["A"], "logprobs": {"A": NaN}}',
    '{"texts": ["A"], "logprobs": {"A": 1e999}}',
    '{"texts": ["A"], "logprobs": {"A": "-1"}}',
    '{"texts": "A"}',
    '{"texts": ["\\ud83d"]}',
    '{"texts": ["A"], "tokens_in": -5}',
    '{"texts": ["A"], "more": 1}',
    "[]",
    "[" * 100_000,
)


async def model(messages: list[dict[str, str]]) -> Completion:
    """Log-probabilities that depend on the question, as many as an endpoint gives."""
    rng = np.random.default_rng(zlib.crc32(messages[-1]["content"].encode()))
    tokens = ["A", "B", *(f"token {number}" for number in range(18))]
    logprobs = np.log(rng.dirichlet(np.ones(20)))
    return Completion(["A"], dict(zip(tokens, logprobs.round(6).tolist(), strict=True)))


model.name = "deterministic"


def annotator(cache: Path) -> LLMAnnotator:
    shown = "{% for l in labels %}{{ l.code }}: {{ l.name }}\n{% endfor %}{{ utterance }}"
    bank = PromptBank([Prompt(f"{number}\n{shown}", CLASSES) for number in range(2)])
    return LLMAnnotator(CLASSES, model, prompts=bank, cache=cache, scoring="logprobs").fit(["hi"])


# -- ways to damage a file --------------------------------------------------------------------


def flip_bit(raw: bytearray, rng: random.Random) -> None:
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


def flip_header(raw: bytearray, rng: random.Random) -> None:
    raw[rng.randrange(100)] = rng.randrange(256)


def overwrite(raw: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(raw))
    length = min(rng.choice([1, 2, 8, 64, 512]), len(raw) - start)
    raw[start : start + length] = rng.randbytes(length)


def blank(raw: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(raw))
    length = min(rng.choice([1, 8, 64, 512, 4096]), len(raw) - start)
    raw[start : start + length] = rng.choice([b"\0", b"\xff"]) * length


def cut(raw: bytearray, rng: random.Random) -> None:
    del raw[rng.randrange(len(raw)) :]


def lengthen(raw: bytearray, rng: random.Random) -> None:
    raw += rng.randbytes(rng.choice([1, 100, 4096, 10_000]))


def page_over_page(raw: bytearray, rng: random.Random) -> None:
    one, other = (4096 * rng.randrange(len(raw) // 4096) for _ in range(2))
    raw[one : one + 4096] = raw[other : other + 4096]


def remove(raw: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(raw))
    del raw[start : start + rng.choice([1, 16, 4096])]


def digit(raw: bytearray, rng: random.Random) -> None:
    """Another answer, as well formed as the right one."""
    places = [place for place, byte in enumerate(raw) if 48 <= byte <= 57]
    raw[rng.choice(places)] = rng.randrange(48, 58)


DAMAGES = (flip_bit, flip_header, overwrite, blank, cut, lengthen, page_over_page, remove, digit)


def lie(path: Path, rng: random.Random) -> None:
    """Rows that are whole, but hold what is no answer."""
    with sqlite3.connect(path) as connection:
        for (key,) in connection.execute("SELECT key FROM answers").fetchall():
            if rng.random() < 0.1:
                stored = rng.choice(LIES)
                checksum = zlib.crc32(stored.encode(), zlib.crc32(key.encode()))
                values = (stored, rng.choice([checksum, None]), key)
                connection.execute("UPDATE answers SET answer=?, checksum=? WHERE key=?", values)
    connection.close()


# -- what becomes of them ---------------------------------------------------------------------


def outcome(path: Path, X: list[str], expected: np.ndarray) -> str:
    teacher = annotator(path)
    try:
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            scores = teacher.predict_proba(X)
    except ValueError as error:
        return REFUSED if str(path) in str(error) else f"unclear error: {error!r}"[:90]
    except Exception as error:
        return f"other error: {error!r}"[:90]
    if not np.array_equal(scores, expected):
        return "other answers"
    asked = teacher.usage_["calls"]
    told = sum(int(str(warning.message).split()[0]) for warning in shown)
    if asked != told:
        return "lost some, not all said"
    again = annotator(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again.predict_proba(X)
    if again.usage_["calls"]:
        return "asked again twice"
    return LOST if asked else IDENTICAL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    X = [f"Utterance number {number}, of some length." for number in range(N_ROWS)]
    counts: dict[str, Counter[str]] = {}
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        original, path = Path(folder) / "original", Path(folder) / "mutant"
        expected = annotator(original).predict_proba(X)
        raw = original.read_bytes()
        for number in range(options.mutants):
            damage = (*DAMAGES, lie)[number % (len(DAMAGES) + 1)]
            for left_over in path.parent.glob("mutant*"):
                left_over.unlink()
            if damage is lie:
                shutil.copy(original, path)
                lie(path, rng)
            else:
                mutant = bytearray(raw)
                damage(mutant, rng)
                path.write_bytes(mutant)
            start = time.process_time()  # others may be busy on this machine
            result = outcome(path, X, expected)
            slowest = max(slowest, time.process_time() - start)
            counts.setdefault(damage.__name__, Counter())[result] += 1
    results = [*FINE, *sorted({result for row in counts.values() for result in row} - set(FINE))]
    print("| damage | " + " | ".join(results) + " |")
    print("|---|" + "---|" * len(results))
    for name, row in counts.items():
        print(f"| {name} | " + " | ".join(str(row[result]) for result in results) + " |")
    total = sum(counts.values(), Counter())
    print("| all | " + " | ".join(str(total[result]) for result in results) + " |")
    size = json.dumps({"answers": 2 * N_ROWS, "bytes": len(raw)})
    print(f"\nslowest pass {slowest:.2f} s of CPU; cache {size}; {options.mutants} mutants, seed "
          f"{options.seed}; {platform.machine()}, {time.strftime('%Y-%m-%d')}")  # fmt: skip
    sys.exit(any(result not in FINE for result in total) or slowest > 1)


if __name__ == "__main__":
    main()
