"""Real dialogues at any size, and encoders that cost little."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.evidence.data import read_table

__all__ = ["dialogues", "noisy", "stand_in_encoder", "static_encoder_folder", "write_halves"]

COLUMNS = ["dialogue_id", "turn", "speaker", "text", "label"]
WRONG = 0.3  # of the simulated LLM's labels
N_HUMAN = 1000
N_CLASSES = 10
STAND_IN_WIDTH = 1536  # MiniLM's, with pooling="layers"


def dialogues(folder: Path) -> pd.DataFrame:
    """Dialogues of SwDA and SGD in random order, with dialogue acts or "other"."""
    parts = [_read(folder, "swda", "act"), _read(folder, "sgd", "act_first")]
    data = pd.concat(parts, ignore_index=True)
    common = data["label"].value_counts().index[: N_CLASSES - 1]
    data["label"] = data["label"].where(data["label"].isin(common), "other")
    names = np.random.default_rng(0).permutation(data["dialogue_id"].unique())
    place = pd.Series(np.arange(len(names)), index=names)
    order = np.lexsort((data["turn"], data["dialogue_id"].map(place)))
    return data.iloc[order].reset_index(drop=True)


def _read(folder: Path, table: str, label: str) -> pd.DataFrame:
    data = read_table(table, folder)
    data = data[(data["text"].fillna("").str.strip() != "") & data[label].notna()]
    name = f"{table}:" + data["split"].astype(str) + ":" + data["dialogue_id"].astype(str)
    return data.assign(dialogue_id=name, label=data[label].astype(str))[COLUMNS]


def repeated(data: pd.DataFrame, n_rows: int) -> pd.DataFrame:
    """So many rows: the dialogues again and again, each occurrence of a text with its number."""
    rounds = -(-n_rows // len(data))
    table = pd.concat([data] * rounds, ignore_index=True).iloc[:n_rows]
    nth = np.repeat(np.arange(rounds), len(data))[:n_rows].astype(str)
    occurrence = table.groupby("text").cumcount().add(1).astype(str)
    return table.assign(
        dialogue_id=table["dialogue_id"] + ":" + nth, text=table["text"] + " " + occurrence
    )


def write_halves(data: pd.DataFrame, n_rows: int, work: Path) -> tuple[Path, Path]:
    """Files of ``n_rows`` utterances to fit, and of as many others to predict."""
    table = repeated(data, 2 * n_rows)
    files = work / f"fit_{n_rows}.parquet", work / f"predict_{n_rows}.parquet"
    for file, part in zip(files, (table[:n_rows], table[n_rows:]), strict=True):
        part.reset_index(drop=True).to_parquet(file)
    return files


def noisy(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Labels of which a share was drawn anew: a simulated LLM's."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(labels)) < WRONG
    return np.where(wrong, rng.choice(np.unique(labels), len(labels)), labels)


def few(labels: np.ndarray, n_labels: int = N_HUMAN) -> np.ndarray:
    """The first labels, None after them."""
    return np.where(np.arange(len(labels)) < n_labels, labels, None)


def static_encoder_folder(work: Path) -> Path:
    """Folder of MiniLM's embedding of each token on its own, made once."""
    folder = work / "static"
    if not folder.exists():
        from benchmarks.serving import static_encoder
        from sklearn_dialpref._student.encoders import resolve_encoder

        static_encoder(resolve_encoder("all-MiniLM-L6-v2")).save(str(folder))
    return folder


def stand_in_encoder(folder: Path, width: int = STAND_IN_WIDTH) -> Path:
    """Folder of an encoder that takes next to no time: the mean over a text's digits."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: at for at, word in enumerate(["[UNK]", *"0123456789"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Digits(individual_digits=True)
    table = np.random.default_rng(0).standard_normal((len(vocabulary), width), dtype=np.float32)
    embedding = StaticEmbedding(tokenizer, embedding_weights=table)
    SentenceTransformer(modules=[embedding], device="cpu").save(str(folder))
    return folder
