"""Who is asking what: so that processes that share a cache do not pay twice for a question."""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Callable
from typing import Any

__all__ = ["CREATE_LEASES", "LEASE_SECONDS", "RENEW_SECONDS", "Leases"]

LEASE_SECONDS = 60.0  # after which a question that nobody renewed may be asked by another
RENEW_SECONDS = 15.0
CREATE_LEASES = """
CREATE TABLE IF NOT EXISTS leases (
    key TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    machine TEXT NOT NULL,
    pid INTEGER NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID
"""
# A lease that ends later than any can is damaged, or was taken before the clock was set back.
CLAIM = """
INSERT INTO leases (key, owner, machine, pid, expires) VALUES (:key, :owner, :machine, :pid, :end)
ON CONFLICT (key) DO UPDATE
SET owner = :owner, machine = :machine, pid = :pid, expires = :end
WHERE NOT expires BETWEEN :now AND :latest
"""

Execute = Callable[[str, Any], tuple[list[Any], int]]


class Leases:
    """The questions that one pass is asking.

    A question is claimed before it is asked and released once its answer is stored, or there is
    none. What a process was asking when it was killed is free as soon as another process of the
    same machine wants it, and after ``LEASE_SECONDS`` for all others.

    Parameters
    ----------
    execute : callable
        Runs a statement on the cache with its values; returns rows, and how many were changed.
    """

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._owner = uuid.uuid4().hex
        self._machine = _machine()

    def claim(self, key: str) -> bool:
        """Take a question, unless another pass is asking it."""
        if self._claim(key):
            return True
        query = "SELECT pid FROM leases WHERE key = ? AND machine = ?"
        for (pid,) in self._execute(query, (key, self._machine))[0]:
            if _is_dead(pid):
                dead = "DELETE FROM leases WHERE machine = ? AND pid = ?"
                self._execute(dead, (self._machine, pid))
                return self._claim(key)
        return False

    def _claim(self, key: str) -> bool:
        now = time.time()
        values = {
            "key": key,
            "owner": self._owner,
            "machine": self._machine,
            "pid": os.getpid(),
            "now": now,
            "end": now + LEASE_SECONDS,
            "latest": now + 2 * LEASE_SECONDS,  # others may have looked at the clock later
        }
        return self._execute(CLAIM, values)[1] == 1

    def renew(self) -> None:
        """Keep what was claimed for longer."""
        end = time.time() + LEASE_SECONDS
        self._execute("UPDATE leases SET expires = ? WHERE owner = ?", (end, self._owner))

    def release(self, key: str) -> None:
        """Let others have a question, if it is still ours."""
        values = (key, self._owner)
        self._execute("DELETE FROM leases WHERE key = ? AND owner = ?", values)

    def release_all(self) -> None:
        """Let others have all that is still claimed."""
        self._execute("DELETE FROM leases WHERE owner = ?", (self._owner,))


def _machine() -> str:
    """What names the processes among which a number means one: containers share host names."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return platform.node()


def _is_dead(pid: Any) -> bool:
    if os.name != "posix" or not isinstance(pid, int) or pid <= 0:
        return False  # on Windows a signal of 0 is no question, but Ctrl-C
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # somebody else's; no process at all
        pass
    return False
