"""The tasks: their utterances, true labels, and simulated votes."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.evidence.data import read_table, within_budget

from .simulated import Simulator
from .states import StateVotes, free_slots, spelled_states

__all__ = ["HUMAN_ONLY", "TASKS", "Problem", "draw_human", "known"]

TRAINING_ROWS = 10_000  # utterances that the LLM labels, about
TEST_ROWS = 5_000
HUMAN_ONLY = "human labels only"
METHODS = {
    HUMAN_ONLY: {"context_turns": 1},
    "joint": {"context_turns": 1, "schedule": "joint"},
    'default, `pooling="model"`': {"context_turns": 1, "pooling": "model"},
    'default, `pooling="auto"`': {"context_turns": 1, "pooling": "auto"},
    "default": {"context_turns": 1},
}
# of each domain one service: what users say does not tell Buses_1 from Buses_2
SERVICES = {
    *("Banks_1", "Buses_2", "Events_2", "Flights_1", "Homes_1", "Hotels_2", "Media_1"),
    *("Movies_1", "Music_2", "RentalCars_2", "Restaurants_1", "RideSharing_2", "Services_3"),
}


@dataclass(frozen=True, eq=False)
class Problem:
    """A task.

    Attributes
    ----------
    name : str
    kind : {"class", "labels", "state"}
        One class of each utterance, any of several labels, or a dialogue state.
    X, X_test : DataFrame
        ``dialogue_id``, ``turn``, ``speaker``, ``text``.
    y, y_test : ndarray
        True labels: None (NaN in tables) in rows without.
    votes : callable
        From a seed to ``y_llm`` for ``X``.
    methods : dict
        By name the parameters of the classifier; the last one is compared with each other.
    slots : dict or None
        Of a state.
    """

    name: str
    kind: str
    X: pd.DataFrame
    y: np.ndarray
    X_test: pd.DataFrame
    y_test: np.ndarray
    votes: Callable[[int], np.ndarray]
    methods: dict[str, dict] = field(default_factory=lambda: METHODS)
    slots: dict | None = None


def known(y: np.ndarray) -> np.ndarray:
    """Rows with a label, or with one in each column."""
    return np.asarray(pd.notna(y).all(axis=1) if y.ndim == 2 else pd.notna(y))


def draw_human(problem: Problem, budget: int, seed: int) -> np.ndarray:
    """True labels of whole dialogues, drawn by seed until there are ``budget``; the rest None."""
    ids = problem.X["dialogue_id"].to_numpy()
    chosen = within_budget(ids, known(problem.y), budget, seed)
    if problem.y.ndim == 2:
        return np.where(chosen[:, None], problem.y, np.nan)
    return np.where(chosen, problem.y, None)


def _read(folder: Path, name: str) -> pd.DataFrame:
    data = read_table(name, folder)
    data = data[data["text"].fillna("").str.strip() != ""]
    data["dialogue_id"] = data["split"].astype(str) + ":" + data["dialogue_id"].astype(str)
    return data.sort_values(["dialogue_id", "turn"], kind="stable").reset_index(drop=True)


def _sample(data: pd.DataFrame, n_rows: int, skip: int = 0) -> tuple[pd.DataFrame, int]:
    """Whole dialogues in random order until there are ``n_rows`` rows; how many dialogues."""
    ids = np.random.default_rng(0).permutation(data["dialogue_id"].unique())[skip:]
    lengths = data["dialogue_id"].value_counts()[ids].cumsum().to_numpy()
    upto = min(int(np.searchsorted(lengths, n_rows)) + 1, len(ids))
    return data[data["dialogue_id"].isin(ids[:upto])].reset_index(drop=True), skip + upto


def _utterances(data: pd.DataFrame) -> pd.DataFrame:
    return data[["dialogue_id", "turn", "speaker", "text"]]


def _class_votes(
    y: np.ndarray, groups: np.ndarray, simulator: Simulator
) -> Callable[[int], np.ndarray]:
    def votes(seed: int) -> np.ndarray:
        labelled = known(y)
        codes, classes = pd.factorize(y[labelled], sort=True)
        table = np.full((len(y), 3), None, dtype=object)
        table[labelled] = classes[simulator(codes, groups[labelled], len(classes), seed)]
        return table

    return votes


def acts(folder: Path, simulator: Simulator) -> Problem:
    """Dialogue acts of Switchboard, 41 classes, on the published test dialogues."""
    data = _read(folder, "swda")
    train, _ = _sample(data[data["split"] == "train"], TRAINING_ROWS)
    test = data[data["split"] == "test"]
    y, groups = train["act"].to_numpy(dtype=object), train["dialogue_id"].to_numpy()
    return Problem(
        "acts",
        "class",
        _utterances(train),
        y,
        _utterances(test),
        test["act"].to_numpy(dtype=object),
        _class_votes(y, groups, simulator),
    )


def intents(folder: Path, simulator: Simulator) -> Problem:
    """The user's active intent in SGD, 30 classes; the system's utterances are context."""
    data = _read(folder, "sgd")
    data = data[data["split"] == "train"]  # the other parts have intents of their own
    train, used = _sample(data, TRAINING_ROWS)
    test, _ = _sample(data, TEST_ROWS, used)
    y, y_test = (
        part["active_intent"].astype(object).where(part["active_intent"].notna(), None).to_numpy()
        for part in (train, test)
    )
    groups = train["dialogue_id"].to_numpy()
    return Problem(
        "intents",
        "class",
        _utterances(train),
        y,
        _utterances(test),
        y_test,
        _class_votes(y, groups, simulator),
    )


def strategies(folder: Path, simulator: Simulator) -> Problem:
    """Strategies of negotiation in CaSiNo, 10 labels, any number of them on an utterance.

    A third of the dialogues is for test; the published test part has 40.
    """
    data = _read(folder, "casino")
    test, used = _sample(data, len(data) // 3)
    train, _ = _sample(data, len(data), used)
    names = data.columns[data.columns.get_loc("strategies") + 1 :]
    y, groups = train[names].to_numpy(dtype=float), train["dialogue_id"].to_numpy()

    def votes(seed: int) -> np.ndarray:
        labelled = known(y)
        shares = np.full(y.shape, np.nan)
        for column, label in enumerate(y[labelled].astype(int).T):
            answers = simulator(label, groups[labelled], 2, 100 * seed + column)
            shares[labelled, column] = answers.mean(axis=1)
        return shares

    y_test = test[names].to_numpy(dtype=float)
    return Problem("strategies", "labels", _utterances(train), y, _utterances(test), y_test, votes)


def states(folder: Path, simulator: Simulator) -> Problem:
    """Dialogue states of SGD, of one service of each domain."""
    data = _read(folder, "sgd")
    data = data[(data["split"] == "train") & data["services"].isin(SERVICES)]
    train, used = _sample(data, TRAINING_ROWS)
    test, _ = _sample(data, TEST_ROWS, used)
    raw = [
        [None if pd.isna(state) else json.loads(state) for state in part["slot_values_json"]]
        for part in (train, test)
    ]
    free = free_slots(raw[0])
    y, y_test = (spelled_states(part, free) for part in raw)
    votes = StateVotes(y, train["dialogue_id"].to_numpy(), simulator)
    return Problem(
        "states",
        "state",
        _utterances(train),
        y,
        _utterances(test),
        y_test,
        votes,
        slots=votes.slots(free),
    )


def context(folder: Path, simulator: Simulator) -> Problem:
    """Emotions of MELD with the labels that GPT-4o gave, by the utterances of context."""
    data = _read(folder, "meld")
    # validation dialogues: how much context is right is chosen by these figures
    train, test = data[data["split"] == "train"], data[data["split"] == "dev"]
    llm = train["llm_gpt4o_melt"].astype(object)
    llm = llm.where(llm.isin(data["emotion"].unique()), None).to_numpy()
    turns = {0: "no context", 2: "two utterances", 4: "four utterances", 1: "one utterance"}
    return Problem(
        "context",
        "class",
        _utterances(train),
        train["emotion"].to_numpy(dtype=object),
        _utterances(test),
        test["emotion"].to_numpy(dtype=object),
        lambda seed: llm,
        methods={name: {"context_turns": n} for n, name in turns.items()},
    )


TASKS: dict[str, Callable[[Path, Simulator], Problem]] = {
    "acts": acts,
    "intents": intents,
    "strategies": strategies,
    "states": states,
    "context": context,
}
