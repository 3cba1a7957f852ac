"""Tasks with human and real LLM labels, their splits, and the labels that a cell may use."""

import argparse
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from sklearn_dialpref import votes_to_scores
from sklearn_dialpref.datasets import fetch_deli, fetch_meld, fetch_p4g, fetch_talkmoves
from sklearn_dialpref.datasets._fetching import data_home_of

__all__ = [
    "TASKS",
    "Cell",
    "Split",
    "Task",
    "add_data_option",
    "draw_labels",
    "load_split",
    "make_cell",
    "read_table",
    "within_budget",
]

FETCHERS = {
    "deli": fetch_deli,
    "meld": fetch_meld,
    "p4g": fetch_p4g,
    "talkmoves": fetch_talkmoves,
}
# for these there is no fetcher: somebody has to make their tables
SOURCES = {
    "casino": "https://github.com/kushalchawla/CaSiNo",
    "sgd": "https://github.com/google-research-datasets/dstc8-schema-guided-dialogue",
    "swda": "https://github.com/NathanDuran/Switchboard-Corpus",
}
LLMS_DELI = ("gpt4omini", "qwen25_32b", "gemini20flash")
LLMS_P4G = ("qwen3_30b", "mistral_small32", "phi4")
# a bank of prompts (zs, zsv2, ...) and models; no zsv4 of Gemini 3 Pro
LLMS_TALKMOVES = tuple(
    f"{prompt}_{model}"
    for prompt in ("zs", "zsv2", "zsv3", "zsv4")
    for model in ("claude45sonnet", "gemini25pro", "gemini3pro", "gpt5", "o3")
    if (prompt, model) != ("zsv4", "gemini3pro")
)


@dataclass(frozen=True)
class Task:
    """A file, its column of human labels and its columns of LLM labels."""

    name: str
    file: str
    human: str
    llm: tuple[str, ...]


TASKS = {
    task.name: task
    for task in (
        Task("meld_sentiment", "meld.parquet", "sentiment", ("llm_gpt4o_melt_sentiment_derived",)),
        Task("meld_emotion", "meld.parquet", "emotion", ("llm_gpt4o_melt",)),
        Task("deli_type", "deli.parquet", "type", tuple(f"llm_{n}_type" for n in LLMS_DELI)),
        Task("deli_target", "deli.parquet", "target", tuple(f"llm_{n}_target" for n in LLMS_DELI)),
        Task(
            "p4g_coarse",
            "p4g.parquet",
            "persuader_gold_coarse",
            tuple(f"llm_{n}_coarse" for n in LLMS_P4G),
        ),
        # A weak teacher: its answers were mapped from another scheme, which knows 15 of the 27
        # classes, and are right in about 30 % of the utterances.
        Task(
            "p4g_strategy",
            "p4g.parquet",
            "persuader_gold",
            tuple(f"llm_{n}_mapped" for n in LLMS_P4G),
        ),
        # The string "None" is a class here: no talk move.
        Task(
            "talkmoves_bank",
            "talkmoves.parquet",
            "talkmove",
            tuple(f"llm_full_{n}" for n in LLMS_TALKMOVES),
        ),
        Task("talkmoves_gpt5", "talkmoves.parquet", "talkmove", ("llm_full_zs_gpt5",)),
    )
}


@dataclass(frozen=True, eq=False)
class Split:
    """All utterances of a task's training and evaluation dialogues, with all their labels.

    Attributes
    ----------
    name : str
    classes : ndarray of shape (n_classes,)
        Human classes, sorted.
    train, evaluation : DataFrame
        ``dialogue_id``, ``text``, ``turn``, ``speaker``; in order within each dialogue.
    y_train, y_evaluation : ndarray of object
        Human labels, None where there is none.
    votes_train, votes_evaluation : DataFrame of object
        LLM labels, a column for each LLM, None where there is none.
    """

    name: str
    classes: np.ndarray
    train: pd.DataFrame
    y_train: np.ndarray
    votes_train: pd.DataFrame
    evaluation: pd.DataFrame
    y_evaluation: np.ndarray
    votes_evaluation: pd.DataFrame


@dataclass(frozen=True)
class Cell:
    """What one fit may see: a split, and the human labels of a budget.

    Attributes
    ----------
    split : Split
    y_human : ndarray of object
        Human labels of the training rows within the budget, None elsewhere.
    """

    split: Split
    y_human: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        return self.split.classes

    @cached_property
    def human(self) -> np.ndarray:
        """Training rows with a human label within the budget."""
        return np.array([label is not None for label in self.y_human])

    @property
    def human_codes(self) -> np.ndarray:
        """Numbers of their classes."""
        return np.searchsorted(self.classes, self.y_human[self.human].astype(str))

    @property
    def groups(self) -> np.ndarray:
        """Dialogue of each training row."""
        return self.split.train["dialogue_id"].to_numpy()

    @cached_property
    def shares(self) -> np.ndarray:
        """Share of the votes for each class in the training rows; NaN without votes."""
        return votes_to_scores(self.split.votes_train, self.classes)

    @property
    def evaluated(self) -> np.ndarray:
        """Evaluation rows with a human label."""
        return np.array([label is not None for label in self.split.y_evaluation])


def add_data_option(
    parser: argparse._ActionsContainer, name: str = "--data-dir", without_fetcher: tuple = ()
) -> None:
    """Add the option of the folder of tables, which is required if a table has no fetcher.

    Parameters
    ----------
    parser : ArgumentParser or group
    name : str
    without_fetcher : tuple of str
        The benchmark's tables that cannot be fetched.
    """
    if without_fetcher:
        names = ", ".join(f"{one}.parquet ({SOURCES[one]})" for one in without_fetcher)
        parser.add_argument(name, type=Path, required=True, help=f"folder of {names}")
        return
    home = data_home_of(None)
    about = f"folder of the tables; what is missing is downloaded to it (default: {home})"
    parser.add_argument(name, type=Path, default=home, help=about)


def read_table(name: str, folder: Path) -> pd.DataFrame:
    """The table of a data set, downloaded to the folder if there is a fetcher."""
    if name in FETCHERS:
        return FETCHERS[name](data_home=folder).frame
    path = Path(folder) / f"{name}.parquet"
    if name in SOURCES and not path.exists():
        raise FileNotFoundError(f"{path} is not there; make it from {SOURCES[name]}")
    return pd.read_parquet(path)


def load_split(task: Task, folder: Path, part: str) -> Split:
    """Training dialogues, and those of ``part`` for evaluation.

    Parameters
    ----------
    task : Task
    folder : Path
        Where its table lies, or is downloaded to.
    part : {"validation", "test"}

    Returns
    -------
    Split
    """
    data = _read(Path(task.file).stem, Path(folder))
    classes = np.unique(_whole(data[task.human]).dropna().astype(str).to_numpy(dtype=str))
    parts = _parts(data)
    data["dialogue_id"] = data["split"].astype(str) + ":" + data["dialogue_id"].astype(str)
    data = data.assign(part=parts, place=pd.factorize(data["dialogue_id"])[0])
    data = data.sort_values(["place", "turn"], kind="stable")

    pieces = []
    for name in ("train", part):
        rows = data[data["part"] == name].reset_index(drop=True)
        pieces += [
            rows[["dialogue_id", "text", "turn", "speaker"]],
            _labels(rows[task.human], classes),
            pd.DataFrame({c: _labels(rows[c], classes) for c in task.llm}, dtype=object),
        ]
    return Split(task.name, classes, *pieces)


@lru_cache(maxsize=1)
def _read_cached(name: str, folder: Path) -> pd.DataFrame:
    data = read_table(name, folder)
    data = data[data["text"].fillna("").str.strip() != ""].reset_index(drop=True)
    if "split" not in data:
        data["split"] = "all"
    if "turn" not in data:
        data["turn"] = data.groupby(["split", "dialogue_id"]).cumcount()
    if "speaker" not in data:
        data["speaker"] = ""
    return data


def _read(name: str, folder: Path) -> pd.DataFrame:
    return _read_cached(name, folder).copy()


def _parts(data: pd.DataFrame) -> np.ndarray:
    """The file's own split into train, dev and test or, without one, dialogues in thirds."""
    if {"train", "dev", "test"} <= set(data["split"]):
        return data["split"].replace({"dev": "validation"}).to_numpy(dtype=object)
    ids = np.random.default_rng(0).permutation(data["dialogue_id"].unique())
    third = len(ids) // 3
    part_of = dict.fromkeys(ids, "test")
    part_of.update(dict.fromkeys(ids[:third], "train"))
    part_of.update(dict.fromkeys(ids[third : 2 * third], "validation"))
    return data["dialogue_id"].map(part_of).to_numpy(dtype=object)


def _whole(column: pd.Series) -> pd.Series:
    """Whole numbers as such, also where missing values had made floats of them."""
    return column.convert_dtypes()


def _labels(column: pd.Series, classes: np.ndarray) -> np.ndarray:
    """Labels as str; None where there is none, or none of the classes."""
    known = set(classes)
    column = _whole(column)
    labels = np.empty(len(column), dtype=object)
    labels[:] = [str(x) if pd.notna(x) and str(x) in known else None for x in column]
    return labels


def draw_labels(split: Split, budget: int | str, seed: int) -> np.ndarray:
    """Human labels of whole dialogues, drawn by seed until there are ``budget`` of them."""
    has_label = np.array([label is not None for label in split.y_train])
    if budget == "all":
        return split.y_train.copy()
    ids = split.train["dialogue_id"].to_numpy()
    return np.where(within_budget(ids, has_label, int(budget), seed), split.y_train, None)


def within_budget(ids: np.ndarray, has_label: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """Labelled rows of whole dialogues, drawn by seed until there are ``budget`` of them."""
    ids = ids.astype(str)
    counts = pd.Series(has_label).groupby(ids).sum()
    order = np.random.default_rng(seed).permutation(np.unique(ids))
    enough = int(np.searchsorted(counts[order].cumsum().to_numpy(), budget))
    return np.isin(ids, order[: enough + 1]) & has_label


def make_cell(split: Split, budget: int | str, seed: int) -> Cell:
    """The cell of a budget ("all": each label) and a seed."""
    return Cell(split, draw_labels(split, budget, seed))
