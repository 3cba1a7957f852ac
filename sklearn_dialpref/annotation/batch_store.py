"""Which questions wait in which of the provider's batches, kept beside the answers."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .leases import Execute

__all__ = ["BatchStore", "Submission"]

CREATE = (
    """
CREATE TABLE IF NOT EXISTS batches (
    name TEXT PRIMARY KEY,
    endpoint TEXT NOT NULL,
    file TEXT,
    batch TEXT,
    created REAL NOT NULL
) WITHOUT ROWID
""",
    """
CREATE TABLE IF NOT EXISTS batch_questions (
    key TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    request TEXT NOT NULL
) WITHOUT ROWID
""",
    "CREATE INDEX IF NOT EXISTS questions_of ON batch_questions (name)",
)
# One statement, so that of two processes only one gets a question.
CLAIM = "INSERT OR IGNORE INTO batch_questions (key, name, request) VALUES (:key, :name, :key)"
LISTED = "key IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True)
class Submission:
    """What is sent to the provider as one file.

    Attributes
    ----------
    name : str
        Our own, which no other has.
    file : str or None
        The provider's id of the uploaded file. None: it is still being written.
    batch : str or None
        The provider's id of the batch. None: it is still to be created, or being created.
    created : float
        When it was begun, in seconds since 1970.
    """

    name: str
    file: str | None
    batch: str | None
    created: float


class BatchStore:
    """The submissions whose results are not all taken in, with the keys of their questions.

    A submission is recorded before its file is written, and each further step before the next
    one begins, so that whoever comes after a kill knows how far it got.

    Parameters
    ----------
    execute : callable
        Runs a statement on the cache with its values; returns rows, and how many were changed.
    endpoint : str
        Whose submissions these are.
    """

    def __init__(self, execute: Execute, endpoint: str) -> None:
        self._execute = execute
        self._endpoint = endpoint
        for statement in CREATE:
            execute(statement, ())

    @staticmethod
    def new_name() -> str:
        """A name that no submission has."""
        return uuid.uuid4().hex

    def begin(self, name: str) -> None:
        """Record a submission without any request."""
        statement = "INSERT INTO batches (name, endpoint, created) VALUES (?, ?, ?)"
        self._execute(statement, (name, self._endpoint, time.time()))

    def names(self) -> list[str]:
        """The endpoint's submissions, the oldest first."""
        query = "SELECT name FROM batches WHERE endpoint = ? ORDER BY created, name"
        return [_text(name) for (name,) in self._execute(query, (self._endpoint,))[0]]

    def get(self, name: str) -> Submission | None:
        """A submission as it stands now; None once it is forgotten."""
        query = "SELECT file, batch, created FROM batches WHERE name = ?"
        for file, batch, created in self._execute(query, (name,))[0]:
            return Submission(name, file and _text(file), batch and _text(batch), created)
        return None

    def claim(self, name: str, key: str) -> bool:
        """Put a question into a submission, as a request of its own, unless it is in one."""
        return self._execute(CLAIM, {"key": key, "name": name})[1] == 1

    def bind(self, keys: Sequence[str], name: str) -> None:
        """Record that one request, with the first key as its id, asks all of the questions."""
        statement = f"UPDATE batch_questions SET request = ? WHERE {LISTED} AND name = ?"
        self._execute(statement, (keys[0], json.dumps(keys), name))

    def move(self, keys: Sequence[str], old: str, new: str) -> bool:
        """Put questions of a submission into another one; False if not all were in it."""
        statement = f"UPDATE batch_questions SET name = ? WHERE {LISTED} AND name = ?"
        return self._execute(statement, (new, json.dumps(keys), old))[1] == len(keys)

    def free(self, keys: Sequence[str], name: str) -> None:
        """Take questions out of a submission."""
        statement = f"DELETE FROM batch_questions WHERE {LISTED} AND name = ?"
        self._execute(statement, (json.dumps(keys), name))

    def holder(self, key: str) -> str | None:
        """The name of the submission that a question is in."""
        query = "SELECT name FROM batch_questions WHERE key = ?"
        rows = self._execute(query, (key,))[0]
        return _text(rows[0][0]) if rows else None

    def requests(self, name: str) -> dict[str, list[str]]:
        """The keys of the questions of each request in a submission."""
        query = "SELECT request, key FROM batch_questions WHERE name = ?"
        requests: dict[str, list[str]] = {}
        for request, key in self._execute(query, (name,))[0]:
            requests.setdefault(_text(request), []).append(_text(key))
        return requests

    def set_file(self, name: str, file: str) -> bool:
        """Record that the file is uploaded; False if the submission was taken to be abandoned."""
        statement = "UPDATE batches SET file = ? WHERE name = ? AND file IS NULL"
        return self._execute(statement, (file, name))[1] == 1

    def set_batch(self, name: str, batch: str) -> None:
        """Record that the batch is created."""
        self._execute("UPDATE batches SET batch = ? WHERE name = ?", (batch, name))

    def unset_batch(self, name: str, batch: str) -> None:
        """Record that the batch has to be created again, as the provider asked nothing of it."""
        statement = "UPDATE batches SET batch = NULL WHERE name = ? AND batch = ?"
        self._execute(statement, (name, batch))

    def clean(self) -> None:
        """Remove what a killed process took in last: questions that have answers."""
        answered = "DELETE FROM batch_questions WHERE key IN (SELECT key FROM answers)"
        self._execute(answered, ())
        left = "SELECT 1 FROM batch_questions WHERE batch_questions.name = batches.name"
        done = f"DELETE FROM batches WHERE batch IS NOT NULL AND NOT EXISTS ({left})"
        self._execute(done, ())

    def forget(self, name: str) -> None:
        """Remove a submission; its questions first, which nobody could free without it."""
        self._execute("DELETE FROM batch_questions WHERE name = ?", (name,))
        self._execute("DELETE FROM batches WHERE name = ?", (name,))


def _text(stored: Any) -> str:
    """A text of the cache, which hands out bytes."""
    return stored.decode("utf-8", "replace") if isinstance(stored, bytes) else str(stored)
