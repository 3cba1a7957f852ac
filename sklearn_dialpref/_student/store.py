"""Embeddings in files, each distinct text once: for one process, or for all that share a folder.

A store is two files: the rows, as float32, and a digest of the text of each. Both only grow. Rows
are written first and their digests after them, so that a row counts once it is there whole.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

DIGEST = 16  # bytes
MOST_BYTES = 32 * 2**30  # of all stores in a folder
MOST_BYTES_OF_PROCESS = 4 * 2**30  # of a store without a folder
# Of a file that is mapped into memory. Of a larger one rows are read: in a map each brings up to
# 2 MB around it, which count as memory of this process.
MOST_MAPPED_BYTES = 2**28
FEW = 64  # texts, which are encoded without waiting for others that encode
RECENT = 10_000  # digests that are not worth sorting among the others
ROWS, DIGESTS, APPENDING, ENCODING = "rows.f32", "texts.blake2b", "appending", "encoding"
FOLDER = Path("sklearn_dialpref", "embeddings")  # in the folder of a user


def digests_of(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """What texts are known by, each as 16 bytes."""
    digests = [hashlib.blake2b(text.encode(), digest_size=DIGEST).digest() for text in texts]
    return np.frombuffer(b"".join(digests), dtype=f"S{DIGEST}")


class RowFile:
    """Rows of float32 in an open file.

    Parameters
    ----------
    file : file object
        Open for reading, unbuffered; for writing too where rows are to be written.
    width : int
        Numbers in a row.
    """

    def __init__(self, file: IO[bytes], width: int) -> None:
        self.file, self.width = file, width
        self._lock = threading.Lock()
        self._rows = np.empty((0, width), dtype=np.float32)

    @classmethod
    def temporary(cls, width: int) -> RowFile:
        """In a file without a name, which goes with this object."""
        return cls(tempfile.TemporaryFile(buffering=0), width)

    def __del__(self) -> None:
        self.file.close()

    def write(self, start: int, rows: NDArray[np.float32]) -> None:
        """Write rows from row ``start`` on."""
        content = memoryview(rows.astype(np.float32, copy=False).tobytes())
        with self._lock:
            self.file.seek(start * self.width * 4)
            while content:  # an unbuffered file may take less
                content = content[self.file.write(content) :]

    def sync(self) -> None:
        os.fsync(self.file.fileno())

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of these rows."""
        n_bytes = os.fstat(self.file.fileno()).st_size
        if n_bytes > MOST_MAPPED_BYTES and hasattr(os, "preadv"):
            return self._read(rows)
        with self._lock:
            if len(rows) and rows.max() >= len(self._rows):
                self._map(n_bytes // (4 * self.width))
            mapped = self._rows
        return mapped[rows]

    def _map(self, n_rows: int) -> None:
        size = n_rows * 4 * self.width
        opened = mmap.mmap(self.file.fileno(), size, access=mmap.ACCESS_READ)
        self._rows = np.frombuffer(opened, dtype=np.float32).reshape(n_rows, self.width)

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        taken = np.empty((len(rows), self.width), dtype=np.float32)
        size, opened = 4 * self.width, self.file.fileno()
        places = memoryview(taken.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        for place, row in enumerate(rows.tolist()):
            to = places[place * size : (place + 1) * size]
            if os.preadv(opened, (to,), row * size) < size:
                raise OSError(f"the file of embeddings ends before row {row}: it was cut off")
        return taken


class DigestIndex:
    """The row of each digest: most of them sorted, the latest in a dict."""

    def __init__(self) -> None:
        self.n = 0
        self._sorted = np.empty(0, dtype=f"S{DIGEST}")
        self._rows = np.empty(0, dtype=np.int64)
        self._recent: dict[bytes, int] = {}

    def find(self, digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """The row of each digest; -1 where it is not known."""
        rows = np.full(len(digests), -1, dtype=np.int64)
        if len(self._sorted):
            place = np.searchsorted(self._sorted, digests)
            place = np.minimum(place, len(self._sorted) - 1)
            found = self._sorted[place] == digests
            rows[found] = self._rows[place[found]]
        if self._recent:
            unknown = np.flatnonzero(rows < 0)
            rows[unknown] = [self._recent.get(digest, -1) for digest in digests[unknown].tolist()]
        return rows

    def add(self, digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Take the digests of the next rows, whose numbers are returned."""
        added = np.arange(self.n, self.n + len(digests))
        for row, digest in enumerate(digests.tolist(), start=self.n):
            self._recent.setdefault(digest, row)
        self.n += len(digests)
        if len(self._recent) > max(RECENT, len(self._sorted) // 4):
            recent = np.array([*self._recent], dtype=f"S{DIGEST}")
            rows = np.array([*self._recent.values()], dtype=np.int64)
            order = np.argsort(recent, kind="stable")
            places = np.searchsorted(self._sorted, recent[order])
            self._sorted = np.insert(self._sorted, places, recent[order])
            self._rows = np.insert(self._rows, places, rows[order])
            self._recent = {}
        return added


class EmbeddingStore:
    """Embeddings of texts for this process, in a file without a name.

    The system keeps as much of it in memory as there is room for.

    Parameters
    ----------
    width : int
        Numbers in an embedding.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.lock = threading.RLock()
        self._open()

    def _open(self) -> None:
        self.index = DigestIndex()
        self.rows = RowFile.temporary(self.width)

    @contextmanager
    def encoding(self, n_texts: int) -> Iterator[None]:
        """Held while so many texts are encoded: room is made, and nobody else encodes them."""
        with self.lock:
            if self.index.n and (self.index.n + n_texts) * 4 * self.width > MOST_BYTES_OF_PROCESS:
                warnings.warn(
                    f"{self.index.n} embeddings are dropped, as this process keeps no more than "
                    f"{MOST_BYTES_OF_PROCESS / 2**30:g} GiB of them; pass memory=folder to keep "
                    "more of them, also for other processes",
                    UserWarning,
                    stacklevel=2,
                )
                self._open()
            yield

    def find(self, digests: NDArray[np.bytes_]) -> tuple[RowFile, NDArray[np.int64]]:
        """The file, and the row of each text in it; -1 where it has none."""
        with self.lock:
            return self.rows, self.index.find(digests)

    def add(
        self, digests: NDArray[np.bytes_], embeddings: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Take the embeddings of texts; the row of each is returned."""
        with self.lock:
            self.rows.write(self.index.n, embeddings)
            return self.index.add(digests)


class SharedStore(EmbeddingStore):
    """Embeddings of texts in a folder, for all processes and sessions that use it.

    Parameters
    ----------
    width : int
        Numbers in an embedding.
    folder : Path
        Of one encoder; it is made where it is not there.
    """

    def __init__(self, width: int, folder: Path) -> None:
        self.folder = folder
        super().__init__(width)

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.index = DigestIndex()
        path = self.folder / ROWS
        with suppress(OSError):  # a folder that can only be read may have it already
            os.utime(self.folder)
            path.touch()
        writable = os.access(path, os.W_OK)
        file = open(path, "r+b" if writable else "rb", buffering=0)  # noqa: SIM115
        self.rows = RowFile(file, self.width)

    def find(self, digests: NDArray[np.bytes_]) -> tuple[RowFile, NDArray[np.int64]]:
        """As of :class:`EmbeddingStore`, with what others have written meanwhile."""
        with self.lock:
            rows = self.index.find(digests)
            if (rows < 0).any():
                self._read_on()
                rows = self.index.find(digests)
            return self.rows, rows

    def add(
        self, digests: NDArray[np.bytes_], embeddings: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """As of :class:`EmbeddingStore`; an OSError where it cannot be written."""
        with self.lock, lock(self.folder, APPENDING):
            self._read_on()
            self.rows.write(self.index.n, embeddings)
            self.rows.sync()
            with open(self.folder / DIGESTS, "r+b" if self.index.n else "wb") as file:
                file.seek(self.index.n * DIGEST)
                file.write(digests.tobytes())
                file.flush()
                os.fsync(file.fileno())
            return self.index.add(digests)

    def _is_whole(self) -> bool:
        """Whether the files are still those that were opened, and nobody has removed one."""
        opened = os.fstat(self.rows.file.fileno())
        try:
            n_bytes = (self.folder / DIGESTS).stat().st_size if self.index.n else 0
            if n_bytes >= self.index.n * DIGEST:
                return os.path.samestat(os.stat(self.folder / ROWS), opened)
        except FileNotFoundError:
            pass
        with suppress(OSError):  # rows without digests begin anew too, beside those being read
            (self.folder / ROWS).unlink()
        return False

    def _read_on(self) -> None:
        """Take in the digests of rows that others have written."""
        if not self._is_whole():
            self._open()
        more = b""
        with suppress(FileNotFoundError), open(self.folder / DIGESTS, "rb") as file:
            file.seek(self.index.n * DIGEST)
            more = file.read()
        n_rows = os.fstat(self.rows.file.fileno()).st_size // (4 * self.width)
        n_more = min(len(more) // DIGEST, n_rows - self.index.n)  # the last may be there in part
        if n_more > 0:
            self.index.add(np.frombuffer(more[: n_more * DIGEST], dtype=f"S{DIGEST}"))

    @contextmanager
    def encoding(self, n_texts: int) -> Iterator[None]:
        """As of :class:`EmbeddingStore`; those who wait then find the texts encoded."""
        if n_texts <= FEW:  # a single answer shall not wait for a corpus
            yield
            return
        with lock(self.folder, ENCODING):
            make_room(self.folder, n_texts * 4 * self.width)
            yield


def lock(folder: Path, name: str, timeout: float = -1) -> FileLock:
    """A lock on a folder, which its system releases when the process dies."""
    return FileLock(folder / f"{name}.lock", timeout=timeout, thread_local=False)


def make_room(folder: Path, n_bytes: int) -> None:
    """Remove the stores beside ``folder`` that were used the longest ago; then what it has itself.

    The caller encodes for ``folder``. Stores that others encode for stay.
    """
    os.utime(folder)
    stores = [path for path in folder.parent.iterdir() if path.is_dir()]
    stores.sort(key=lambda path: path.stat().st_mtime_ns)
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in stores}
    total = sum(sizes.values()) + n_bytes
    for path in stores:
        if total > MOST_BYTES and path != folder:
            with suppress(Timeout, OSError), lock(path, ENCODING, timeout=0):
                shutil.rmtree(path)
                total -= sizes[path]
    if total > MOST_BYTES:
        with lock(folder, APPENDING), suppress(OSError):
            for name in (DIGESTS, ROWS):  # whoever reads them has them open
                (folder / name).unlink(missing_ok=True)


class Embeddings:
    """Embeddings of texts that are in a file, read where they are asked for.

    Parameters
    ----------
    file : RowFile
    rows : ndarray of shape (n_texts,)
        The row of each text in it.
    """

    def __init__(self, file: RowFile, rows: NDArray[np.int64]) -> None:
        self.file, self.rows = file, rows

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.file.width

    def __getitem__(self, places: Any) -> NDArray[np.float32]:
        return self.file.take(self.rows[places])
