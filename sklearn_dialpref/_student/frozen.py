"""Encoders that stay as they are: each distinct text is encoded once."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray
from tqdm.auto import tqdm

from sklearn_dialpref._progress import bar_options, calling_bar

from .encoders import (
    BLOCK,
    EMBEDDING_BATCH,
    TextEncoder,
    by_length,
    load_encoder,
    resolve_encoder,
)
from .store import FOLDER, Embeddings, EmbeddingStore, SharedStore, digests_of

BLOCKS_PER_JOB = 4  # at least, where there are so many texts, so that no worker waits for long
FEW_FOR_JOBS = 512  # texts that are encoded sooner than workers have started
MOST_LOADED = 2  # encoders, for the fits of a search
MOST_STORES = 8

_LOADED: OrderedDict[tuple[Any, ...], TextEncoder] = OrderedDict()
_LOADING = threading.Lock()
_STORES: OrderedDict[tuple[Any, ...], EmbeddingStore] = OrderedDict()


# -- which encoder it is ----------------------------------------------------------------------


def fingerprint(encoder: Any) -> str:
    """A digest of an encoder: of its files, or of an object's settings and weights."""
    if isinstance(encoder, str | Path):
        folder = resolve_encoder(str(encoder))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return _digest_of_files(folder, tuple(stats))
    digest = hashlib.blake2b(digest_size=16)
    settings = [
        encoder,  # its repr has the settings of its modules
        encoder.tokenizer,
        encoder.max_seq_length,
        encoder.truncate_dim,
        encoder.prompts,
        encoder.default_prompt_name,
    ]
    digest.update(repr(settings).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _digest_of_files(folder: Path, stats: tuple[tuple[str, int, int], ...]) -> str:
    """Of their names and contents; sizes and times only tell whether they have changed."""
    digest = hashlib.blake2b(digest_size=16)
    for name, size, _ in stats:
        digest.update(f"{Path(name).relative_to(folder)}:{size}:".encode())
        with open(name, "rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _loaded(
    encoder: Any, encoder_layers: int | None, pooling: str, device: str, key: str
) -> TextEncoder:
    """The encoder that the key stands for, which this process loads once."""
    place = (key, encoder_layers, pooling, device)
    with _LOADING:
        if place not in _LOADED:
            model = load_encoder(encoder, encoder_layers)
            _LOADED[place] = TextEncoder(model, 0, pooling).to(device)
            while len(_LOADED) > MOST_LOADED:
                _LOADED.popitem(last=False)
        return _LOADED[place]


def _encode(*specification: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    """What a worker does; it is told where its encoder is, and loads that itself.

    It raises no OSError, which would be taken for one of the folder of embeddings.
    """
    encoder, *_, key = specification
    try:
        is_same = fingerprint(encoder) == key
        loaded = _loaded(*specification) if is_same else None
    except OSError as error:
        raise RuntimeError(f"a worker cannot load encoder {str(encoder)!r}: {error}") from error
    if loaded is None:
        raise RuntimeError(
            f"encoder {str(encoder)!r} is another one for this worker than for the process that "
            "asks it; install the same model on all machines"
        )
    return loaded.embed(texts)


# -- frozen encoders --------------------------------------------------------------------------


class FrozenEncoder:
    """An encoder that stays as it is: each distinct text is encoded once.

    Parameters
    ----------
    encoder : str, Path or SentenceTransformer
    device : str
    pooling : {"layers", "model"}, default="layers"
        As of :class:`TextEncoder`.
    encoder_layers : int or None, default=None
        As of :func:`load_encoder`.
    memory : str, Path, joblib.Memory or None, default=None
        Where embeddings are kept; None keeps them for this process.
    n_jobs : int or None, default=None
        Workers that encode, where the encoder is a name or a folder, which they can load.
    verbose : bool, default=False
        Whether to show a progress bar over many texts.

    Attributes
    ----------
    on_share : callable or None
        It is told each share of the texts as they are encoded.
    """

    on_share: Callable[[float], None] | None = None

    def __init__(
        self,
        encoder: Any,
        device: str,
        pooling: str = "layers",
        encoder_layers: int | None = None,
        *,
        memory: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.set_options(memory, n_jobs, verbose)
        key = fingerprint(encoder)
        self.text_encoder = _loaded(encoder, encoder_layers, pooling, device, key)
        self.specification = (encoder, encoder_layers, pooling, device, key)

    def __getstate__(self) -> dict[str, Any]:
        # a copy goes by the weights that it has: there may be no such folder where it is
        return {**self.__dict__, "specification": (None, *self.specification[1:])}

    def set_options(self, memory: Any, n_jobs: int | None, verbose: bool) -> None:
        """Where embeddings are kept, by how many they are made, and whether a bar is shown."""
        location = getattr(memory, "location", memory)
        self.memory = None if location is None else Path(location).expanduser().absolute()
        self.n_jobs, self.verbose = n_jobs, verbose

    @property
    def n_context(self) -> int:
        return self.text_encoder.n_context

    def table(self, texts: Sequence[str]) -> Embeddings:
        """Embeddings of distinct texts by their places; those that are known are not encoded."""
        digests = digests_of(texts)
        if self.memory is not None:
            try:
                return self._table(self._store(), digests, texts)
            except (OSError, NotImplementedError) as error:  # of a file system without locks
                warnings.warn(
                    f"memory={str(self.memory)!r} cannot be written to ({error}): embeddings are "
                    "kept for this process only; free some space, or pass another folder",
                    UserWarning,
                    stacklevel=2,
                )
        try:
            return self._table(self._store(shared=False), digests, texts)
        except OSError as error:
            n_bytes = 4 * len(texts) * self.text_encoder.n_outputs
            raise OSError(
                f"the embeddings of {len(texts)} texts, {n_bytes / 2**30:.1f} GiB, cannot be "
                f"written to {tempfile.gettempdir()} ({error}); free some space, set TMPDIR to "
                "another folder, or pass memory=folder"
            ) from error

    def _table(
        self, store: EmbeddingStore, digests: NDArray[np.bytes_], texts: Sequence[str]
    ) -> Embeddings:
        while True:
            file, rows = store.find(digests)
            n_unknown = int((rows < 0).sum())
            if not n_unknown:
                return Embeddings(file, rows)
            with store.encoding(n_unknown):
                # others may have encoded them while this process waited
                file, rows = store.find(digests)
                unknown = sorted(np.flatnonzero(rows < 0).tolist(), key=texts.__getitem__)
                new = [texts[place] for place in unknown]
                order = by_length(new)
                places, n_done = np.array(unknown)[order], 0
                for embeddings in self._encoded([new[place] for place in order.tolist()]):
                    block = places[n_done : n_done + len(embeddings)]
                    rows[block] = store.add(digests[block], embeddings)
                    n_done += len(embeddings)
                if store.rows is file:  # else somebody has removed it
                    return Embeddings(file, rows)

    def _encoded(self, texts: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """The embeddings of texts that are sorted by length, in blocks of them."""
        is_small = len(texts) <= FEW_FOR_JOBS
        by_others = isinstance(self.specification[0], str | Path) and not is_small
        n_jobs = effective_n_jobs(self.n_jobs) if by_others else 1
        # whole batches: they are the same ones whatever the number of workers
        n_batches = -(-len(texts) // (n_jobs * BLOCKS_PER_JOB * EMBEDDING_BATCH))
        size = min(BLOCK, n_batches * EMBEDDING_BATCH) if n_jobs > 1 else BLOCK
        blocks = [texts[start : start + size] for start in range(0, len(texts), size)]
        shown = bar_options(verbose=self.verbose and not is_small and calling_bar() is None)
        with tqdm(total=len(texts), desc="encode", unit="text", **shown) as bar:

            def advance(n_texts: int) -> None:
                bar.update(n_texts)
                if self.on_share is not None:
                    self.on_share(n_texts / len(texts))

            if n_jobs == 1:
                for block in blocks:
                    yield self.text_encoder.embed(block, advance)
                return
            work = partial(_encode, *self.specification)
            parallel = Parallel(n_jobs=self.n_jobs, return_as="generator")
            encoded = parallel(delayed(work)(texts=block) for block in blocks)
            for embeddings in encoded:
                yield embeddings
                advance(len(embeddings))

    def _store(self, shared: bool = True) -> EmbeddingStore:
        """Where the embeddings are; the process has one for each encoder and place."""
        _, encoder_layers, pooling, device, key = self.specification
        # devices round differently
        name = f"{key}-{pooling}-{encoder_layers}-{torch.device(device).type}"
        memory = self.memory if shared else None
        place = (memory, name, os.getpid())  # not of the process that this one was forked from
        width = self.text_encoder.n_outputs
        with _LOADING:
            if place not in _STORES:
                if memory is None:
                    _STORES[place] = EmbeddingStore(width)
                else:
                    _STORES[place] = SharedStore(width, memory / FOLDER / name)
            _STORES.move_to_end(place)
            while len(_STORES) > MOST_STORES:
                _STORES.popitem(last=False)
            return _STORES[place]
