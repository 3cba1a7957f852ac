"""Votes for data without LLM labels, as wrong as real LLMs were elsewhere."""

from collections.abc import Callable
from dataclasses import astuple, dataclass, field, fields
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.evidence.data import TASKS, read_table
from sklearn_dialpref.datasets import simulate_votes

__all__ = ["ErrorProfile", "Simulator", "measured_profiles", "typical_profile"]

# whose LLMs the simulated ones are to be like
PROFILED = ("meld_sentiment", "meld_emotion", "deli_type", "deli_target", "p4g_coarse")
N_VOTES = 3
ROWS = 4000  # on which the simulation is adjusted
ROUNDS = 3
HALVINGS = 10


@dataclass(frozen=True)
class ErrorProfile:
    """How an LLM errs.

    Attributes
    ----------
    kappa : float
        Cohen's kappa of a vote and the human label.
    class_bias : float
        Total variation between the shares of the classes in votes and in human labels, relative
        to the chance that two human labels differ.
    rarity : float
        How much rarer the voted classes are than the true ones: difference of their mean
        log-shares, in standard deviations of the true ones'.
    dialogue_share : float
        Share of the variance of being wrong that lies between dialogues (one-way ANOVA).
    agreement : float
        Cohen's kappa of two votes on an utterance; NaN of one LLM.
    """

    kappa: float
    class_bias: float
    rarity: float
    dialogue_share: float
    agreement: float

    @classmethod
    def of(cls, truth: np.ndarray, votes: np.ndarray, groups: np.ndarray) -> "ErrorProfile":
        """Means over the votes' columns; labels are codes, -1 where missing."""
        single = []
        for vote in votes.T:
            both = (truth >= 0) & (vote >= 0)
            n_classes = max(truth.max(), vote.max()) + 1
            true, voted = (
                np.bincount(x[both], minlength=n_classes) / both.sum() for x in (truth, vote)
            )
            log_share = np.log(np.maximum(true, 0.5 / both.sum()))
            deviation = np.sqrt(true @ (log_share - true @ log_share) ** 2)
            single.append(
                (
                    kappa(truth[both], vote[both]),
                    np.abs(true - voted).sum() / 2 / (1 - true @ true),
                    (true - voted) @ log_share / deviation,
                    between_share((truth != vote)[both].astype(float), groups[both]),
                )
            )
        pairs = [
            kappa(a[known], b[known])
            for a, b in combinations(votes.T, 2)
            if (known := (a >= 0) & (b >= 0)).any()
        ]
        return cls(*np.mean(single, axis=0), float(np.mean(pairs)) if pairs else float("nan"))


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa of two columns of codes; 0 where all labels are the same.

    That of scikit-learn takes ten times as long on these few rows, to check its input.
    """
    n_classes = int(max(a.max(initial=0), b.max(initial=0))) + 1
    share_a, share_b = (np.bincount(x, minlength=n_classes) / max(len(x), 1) for x in (a, b))
    chance = float(share_a @ share_b)
    return (float(np.mean(a == b)) - chance) / (1 - chance) if chance < 1 and len(a) else 0.0


def between_share(values: np.ndarray, groups: np.ndarray) -> float:
    """Intraclass correlation of a one-way analysis of variance, 0 at least."""
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    n, k = len(values), len(size)
    means = np.bincount(group, values) / size
    within = ((values - means[group]) ** 2).sum() / (n - k)
    between = (size * (means - values.mean()) ** 2).sum() / (k - 1)
    typical = (n - (size**2).sum() / n) / (k - 1)
    excess = max(0.0, between - within) / typical
    return excess / (excess + within) if excess + within > 0 else 0.0


def measured_profiles(folder: Path) -> pd.DataFrame:
    """The profile of the real LLMs of each task, a row each."""
    rows = {}
    for task in map(TASKS.__getitem__, PROFILED):
        data = read_table(Path(task.file).stem, folder)
        table = data[[task.human, *task.llm]].convert_dtypes().astype("string")
        codes, _ = pd.factorize(table.to_numpy(dtype=object, na_value=None).ravel())
        codes = codes.reshape(table.shape)
        truth = codes[:, 0]
        asked = np.isin(codes[:, 1:], truth[truth >= 0])  # an answer off the list is none
        votes = np.where(asked, codes[:, 1:], -1)
        groups = (data["split"].astype(str) + data["dialogue_id"].astype(str)).to_numpy()
        rows[task.name] = astuple(ErrorProfile.of(truth, votes, groups))
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=[one.name for one in fields(ErrorProfile)]
    )


def typical_profile(profiles: pd.DataFrame) -> ErrorProfile:
    """Means over the rows."""
    return ErrorProfile(**profiles.mean())


@dataclass
class Simulator:
    """Draws votes with the errors of a profile, and keeps what profiles they came to have.

    Attributes
    ----------
    goal : ErrorProfile
    reached : list of ErrorProfile
        Of all votes drawn so far.
    """

    goal: ErrorProfile
    reached: list[ErrorProfile] = field(default_factory=list)

    def __call__(
        self, truth: np.ndarray, groups: np.ndarray, n_classes: int, seed: int
    ) -> np.ndarray:
        """As :func:`simulated_votes`."""
        votes = simulated_votes(truth, groups, n_classes, self.goal, seed)
        self.reached.append(ErrorProfile.of(truth, votes, groups))
        return votes


def simulated_votes(
    truth: np.ndarray, groups: np.ndarray, n_classes: int, profile: ErrorProfile, seed: int
) -> np.ndarray:
    """Votes of :func:`simulate_votes`, its scales adjusted until the votes have this profile.

    Parameters
    ----------
    truth : ndarray of int, shape (n,)
        Codes of the classes, none missing.
    groups : ndarray of shape (n,)
        Dialogues.
    n_classes : int
    profile : ErrorProfile
    seed : int

    Returns
    -------
    ndarray of int, shape (n, N_VOTES)
    """
    scales = {"signal": 2.0, "dialogue_bias": 0.5, "vote_noise": 0.5}
    bias = {"common": 0.0, "random": 0.0}
    classes = np.arange(n_classes)
    log_share = np.log((np.bincount(truth, minlength=n_classes) + 0.5) / len(truth))
    direction = np.random.default_rng(seed).standard_normal(n_classes)

    def votes(upto: int | None = None) -> np.ndarray:
        return simulate_votes(
            truth[:upto],
            groups[:upto],
            classes=classes,
            n_votes=N_VOTES,
            class_bias=bias["common"] * log_share + bias["random"] * direction,
            noise=1.0,
            random_state=seed,
            **scales,
        )

    def profile_now() -> ErrorProfile:
        return ErrorProfile.of(truth[:ROWS], votes(ROWS), groups[:ROWS])

    # each scale moves one measure most
    goals: list[tuple[dict[str, float], str, Callable[[ErrorProfile], bool]]] = [
        (bias, "common", lambda now: now.rarity < profile.rarity),
        (bias, "random", lambda now: now.class_bias > profile.class_bias),
        (scales, "dialogue_bias", lambda now: now.dialogue_share > profile.dialogue_share),
        (scales, "vote_noise", lambda now: now.agreement < profile.agreement),
        (scales, "signal", lambda now: now.kappa > profile.kappa),
    ]
    for _ in range(ROUNDS):
        for parameters, name, too_much in goals:
            low, high = (-12.0 if name == "common" else 0.0), 12.0
            for _ in range(HALVINGS):
                parameters[name] = (low + high) / 2
                if too_much(profile_now()):
                    high = parameters[name]
                else:
                    low = parameters[name]
    return votes()
