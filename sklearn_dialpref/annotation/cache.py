"""Answers of language models on disk: what was paid for once is never asked again."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["AnswerCache", "default_cache"]

APPLICATION_ID = 0x5344_5043  # "SDPC"
FORMAT = 1
BATCH = 500  # keys per query; sqlite allows at least 999 variables
BUSY_TIMEOUT = 60.0  # seconds to wait for another process's write
CREATE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    prompt_id TEXT NOT NULL,
    answer TEXT NOT NULL,
    created TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) WITHOUT ROWID
"""


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
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            self._open()
        except sqlite3.OperationalError:  # locked, read-only, no space: sqlite says it best
            self._connection.close()
            raise
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise self._damaged(error) from None
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

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"the answer cache {self.path} is damaged ({error}); its answers were paid for, so it "
            f"is left as it is: try `sqlite3 {self.path} .recover | sqlite3 recovered.db` and use "
            "the result, restore a copy, or move the file away to start anew"
        )

    def get_many(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The answers that are there.

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
            If the file is damaged.
        """
        answers: dict[str, dict[str, Any]] = {}
        try:
            for start in range(0, len(keys), BATCH):
                part = keys[start : start + BATCH]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, answer FROM answers WHERE key IN ({marks})"
                with self._lock:
                    rows = self._connection.execute(query, part).fetchall()
                answers.update((key, json.loads(answer)) for key, answer in rows)
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
            raise self._damaged(error) from None
        return answers

    def put(self, key: str, model: str, prompt_id: str, answer: dict[str, Any]) -> None:
        """Write one answer, durably; the first answer to a key stays.

        Parameters
        ----------
        key, model, prompt_id : str
        answer : dict
            What JSON can hold.
        """
        row = (key, model, prompt_id, json.dumps(answer, ensure_ascii=False))
        try:
            with self._lock:
                self._connection.execute(
                    "INSERT OR IGNORE INTO answers (key, model, prompt_id, answer) "
                    "VALUES (?, ?, ?, ?)",
                    row,
                )
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from None

    def __len__(self) -> int:
        with self._lock:
            return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

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
