"""Embeddings of utterances by the frozen encoder, computed once and kept in a file."""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from sklearn_dialpref._student.encoders import load_encoder

from .data import Cell, Split

__all__ = ["ENCODER", "WORK", "cell_features", "prepare"]

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
WORK = Path("build") / "evidence"
N_HIDDEN = 384
BATCH = 64


def prepare(split: Split) -> Path:
    """Compute the embeddings of a split's texts, unless there are any; the file they are in."""
    texts = _texts(split)
    digest = hashlib.sha256("\0".join([ENCODER, *texts]).encode()).hexdigest()[:16]
    path = WORK / f"embeddings_{digest}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npy")
        np.save(unfinished, _encode(texts))
        unfinished.rename(path)
    return path


def cell_features(cell: Cell, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Features of the training rows and of the evaluated rows, standardised.

    Each row: the utterance and the previous one of its dialogue, zeros for the first. Means and
    deviations are those of the training rows with any label.

    Parameters
    ----------
    cell : Cell
    kind : {"sentence", "layers"}
        An utterance as its sentence embedding, or as the means over its tokens of all hidden
        states, each of unit length. The previous one is always its sentence embedding.

    Returns
    -------
    train, evaluated : ndarray of float32
    """
    train, evaluation = _raw(cell.split, kind)
    labelled = cell.human | ~np.isnan(cell.shares[:, 0])
    mean, deviation = train[labelled].mean(axis=0), train[labelled].std(axis=0)
    deviation[deviation == 0] = 1
    return (train - mean) / deviation, (evaluation[cell.evaluated] - mean) / deviation


def _texts(split: Split) -> list[str]:
    return sorted({*split.train["text"], *split.evaluation["text"]})


@lru_cache(maxsize=2)
def _raw(split: Split, kind: str) -> tuple[np.ndarray, np.ndarray]:
    place = {text: index for index, text in enumerate(_texts(split))}
    states = np.load(prepare(split), mmap_mode="r")
    own = states if kind == "layers" else states[:, -N_HIDDEN:]
    parts = []
    for frame in (split.train, split.evaluation):
        rows = frame["text"].map(place).to_numpy()
        first = frame["dialogue_id"].ne(frame["dialogue_id"].shift()).to_numpy()
        previous = np.asarray(states[np.roll(rows, 1), -N_HIDDEN:])
        previous[first] = 0
        parts.append(np.concatenate([own[rows], previous], axis=1))
    return parts[0], parts[1]


def _encode(texts: list[str]) -> np.ndarray:
    """Means over tokens of each hidden state, of unit length, side by side, the last one last."""
    encoder = load_encoder(ENCODER).eval()
    order = np.argsort([-len(text) for text in texts], kind="stable")
    embeddings = None
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            rows = order[start : start + BATCH]
            tokens = encoder.preprocess([texts[row] for row in rows])
            inputs = {k: tokens[k] for k in ("input_ids", "attention_mask")}
            states = encoder[0].auto_model(**inputs, output_hidden_states=True).hidden_states
            mask = inputs["attention_mask"].unsqueeze(-1).float()
            means = [normalize((s * mask).sum(1) / mask.sum(1), dim=1) for s in states]
            batch = torch.cat(means, dim=1).numpy()
            if embeddings is None:
                embeddings = np.empty((len(texts), batch.shape[1]), dtype=np.float32)
            embeddings[rows] = batch
    return embeddings
