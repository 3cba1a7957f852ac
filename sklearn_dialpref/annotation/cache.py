"""Answers of language models on disk: what was paid for once is never asked again."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .leases import CREATE_LEASES

__all__ = ["AnswerCache", "default_cache"]

APPLICATION_ID = 0x5344_5043  # "SDPC"
FORMAT = 1
BATCH = 500  # keys per query; sqlite allows at least 999 variables
DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_SCHEMA", "SQLITE_MISMATCH")
BUSY_TIMEOUT = 60.0  # seconds to wait for another process's write
CREATE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    prompt_id TEXT NOT NULL,
    answer TEXT NOT NULL,
    created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    checksum INTEGER
) WITHOUT ROWID
"""
# All keys a second time: an answer whose own key was damaged is missed, and not forgotten.
CREATE_INDEX = "CREATE INDEX IF NOT EXISTS known ON answers (key || '')"
ANSWERS = "SELECT key, answer, checksum FROM answers NOT INDEXED WHERE key IN ({marks})"
KNOWN = "SELECT key FROM answers INDEXED BY known WHERE key || '' IN ({marks})"
# Lookups by key would miss these. (With the model, so that not the index above is read.)
MISPLACED = """
SELECT 1 FROM (SELECT key, model, lag(key) OVER () AS before FROM answers NOT INDEXED)
WHERE key <= before OR model IS NULL LIMIT 1
"""
PUT = "INTO answers (key, model, prompt_id, answer, checksum) VALUES"


def default_cache() -> Path:
    """The file of answers in the user's cache folder, which ``XDG_CACHE_HOME`` moves on Linux."""
    from platformdirs import user_cache_path

    return user_cache_path("sklearn-dialpref", appauthor=False) / "answers.sqlite"


class AnswerCache:
    """Answers by key, in an sqlite file that several processes may use at once.

    Each answer is committed as it arrives, so that a killed process loses none.

    Parameters
    ----------
    path : str or Path
        The file; made if it is not there. ``":memory:"`` keeps the answers in memory.

    Attributes
    ----------
    lost : set of str
        Keys of answers that were looked up and are damaged. ``put`` replaces them.

    Raises
    ------
    ValueError
        If the file is damaged, or is something else than such a cache.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn_dialpref.annotation.cache import AnswerCache
    >>> with tempfile.TemporaryDirectory() as folder, AnswerCache(Path(folder) / "c.db") as cache:
    ...     cache.put("key", "model", "prompt", {"text": "A"})
    ...     cache.get_many(["key", "unknown"])
    {'key': {'text': 'A'}}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.lost: set[str] = set()
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        # decoded here, as sqlite's own complaint about bytes that are no UTF-8 names no row
        self._connection.text_factory = bytes
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise self._failure(error) from None
        except UnicodeDecodeError:  # sqlite quotes the file in an error
            self._connection.close()
            raise self._damage("malformed") from None
        except ValueError:
            self._connection.close()
            raise

    def _open(self) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")  # so that no other process makes the tables meanwhile
        application, version = (
            execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        tables = execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and application != APPLICATION_ID:
            raise ValueError(
                f"{self.path} is an sqlite file of another program, not an answer cache; "
                "give the cache a path of its own"
            )
        if version > FORMAT:
            raise ValueError(
                f"{self.path} was written by a newer version of sklearn-dialpref (format "
                f"{version}, this one reads {FORMAT}); update the package, or use another file"
            )
        if not tables:
            execute(CREATE)
            execute(f"PRAGMA application_id={APPLICATION_ID}")
            execute(f"PRAGMA user_version={FORMAT}")
        # Files of older versions lack these; older versions do not mind them.
        columns = [column for _, column, *_ in execute("PRAGMA table_info(answers)")]
        if b"checksum" not in columns:
            execute("ALTER TABLE answers ADD COLUMN checksum INTEGER")
        execute(CREATE_INDEX)
        execute(CREATE_LEASES)
        execute("COMMIT")
        self._write_ahead()
        # In WAL mode NORMAL loses nothing when the process dies, only when the machine does.
        execute("PRAGMA synchronous=NORMAL")
        execute("SELECT key FROM answers LIMIT 1").fetchone()

    def _write_ahead(self) -> None:
        """Set the mode that lets others read; sqlite does not wait for others here by itself."""
        until = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def _failure(self, error: sqlite3.DatabaseError) -> Exception:
        """What sqlite says best itself (locked, no space, read-only); else, that it is damaged."""
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
        writable = os.access(self.path, os.W_OK)
        if name not in DAMAGED and not (name == "SQLITE_READONLY" and writable):
            return error
        return self._damage(error)

    def _damage(self, error: object) -> ValueError:
        return ValueError(
            f"the answer cache {self.path} is damaged ({error}); its answers were paid for, so it "
            f"is left as it is: try `sqlite3 {self.path} .recover | sqlite3 recovered.db` and use "
            "the result, restore a copy, or move the file away to start anew"
        )

    def get_many(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The answers that are there and whole; the keys of damaged ones go to ``lost``.

        Parameters
        ----------
        keys : sequence of str

        Returns
        -------
        dict of str to dict
            Without the keys that are unknown.

        Raises
        ------
        ValueError
            If the file is damaged as a whole.
        """
        answers = self._read_rows(keys)
        missing = [key for key in keys if key not in answers]
        if known := self._select(KNOWN, missing):
            # read again, as another process may have put them there in between
            known_keys = [key.decode("utf-8", "replace") for (key,) in known]
            answers |= self._read_rows(known_keys)
            if lost := {key for key in known_keys if key not in answers} - self.lost:
                self._check_structure()
                self.lost |= lost
        return answers

    def _check_structure(self) -> None:
        """Raise a ValueError unless answers can be replaced: writing would destroy more."""
        ((result,), *_), _ = self.execute("PRAGMA quick_check(1)")
        if result != b"ok":
            raise self._damage(result.decode("utf-8", "replace"))
        if self.execute(MISPLACED)[0]:
            raise self._damage("answers are not in the order of their keys")

    def _read_rows(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        rows = self._select(ANSWERS, keys)
        answers = {key.decode(): _read(key, stored, checksum) for key, stored, checksum in rows}
        return {key: answer for key, answer in answers.items() if answer is not None}

    def _select(self, query: str, keys: Sequence[str]) -> list[Any]:
        rows: list[Any] = []
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            rows += self.execute(query.format(marks=",".join("?" * len(part))), part)[0]
        return rows

    def put(self, key: str, model: str, prompt_id: str, answer: dict[str, Any]) -> None:
        """Write one answer, durably; the first answer to a key stays, unless it is damaged.

        Parameters
        ----------
        key, model, prompt_id : str
        answer : dict
            What JSON can hold.
        """
        self.put_many({key: answer}, model, prompt_id)

    def put_many(self, answers: Mapping[str, dict[str, Any]], model: str, prompt_id: str) -> None:
        """Write a few answers by key at once, as :meth:`put` does.

        Parameters
        ----------
        answers : mapping of str to dict
        model, prompt_id : str
        """
        lost = self.lost.intersection(answers)
        for how, keys in (("REPLACE", lost), ("IGNORE", answers.keys() - lost)):
            values: list[Any] = []
            for key in keys:
                stored = json.dumps(answers[key], ensure_ascii=False, allow_nan=False)
                checksum = _checksum(key.encode(), stored.encode())
                values += [key, model, prompt_id, stored, checksum]
            if values:
                rows = ", ".join(["(?, ?, ?, ?, ?)"] * len(keys))
                self.execute(f"INSERT OR {how} {PUT} {rows}", values)

    def execute(self, statement: str, values: Any = ()) -> tuple[list[Any], int]:
        """Run one statement, in a transaction of its own.

        Parameters
        ----------
        statement : str
        values : sequence or dict

        Returns
        -------
        rows : list of tuple
            Their texts as bytes.
        changed : int
            How many rows were changed.
        """
        try:
            with self._lock:
                cursor = self._connection.execute(statement, values)
                return cursor.fetchall(), cursor.rowcount
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from None
        except UnicodeDecodeError:
            raise self._damage("malformed") from None

    def __len__(self) -> int:
        return int(self.execute("SELECT count(*) FROM answers")[0][0][0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _checksum(key: bytes, stored: bytes) -> int:
    return zlib.crc32(stored, zlib.crc32(key))


def _read(key: bytes, stored: Any, checksum: int | None) -> dict[str, Any] | None:
    """The answer in a row; None if it is damaged. Rows of older versions have no checksum."""
    try:
        if checksum is not None and checksum != _checksum(key, stored):
            return None
        answer = json.loads(stored)
    except (TypeError, ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
