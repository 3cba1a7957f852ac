"""This package's classifier: its default, and what each part of it buys."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sklearn_dialpref import DialoguePreferenceClassifier

from .data import Cell, Split

__all__ = ["ABLATIONS", "OURS", "Method", "fit_predict"]

STUDENTS = {
    "frozen": {"trainable_layers": 0, "context_turns": 1},
    "fine-tuned": {"context_turns": 0},
}
# parameters on which the embeddings of a frozen encoder depend
EMBEDDING = ("encoder", "pooling", "trainable_layers", "context_turns")
LOSSES = ("noise_reduced", "soft_cross_entropy", "ranknet", "margin_mse", "robust")
SCHEDULES = ("pretrain_finetune", "joint", "distill_then_joint")

# Parameters of each method, the default's first.
VARIANTS = {
    "default": {},
    "noise_reduced-two_rounds": {"loss": "noise_reduced"},
    "default_sentence_embedding": {"pooling": "model"},
} | {
    f"{loss}-{schedule}": {"loss": loss, "schedule": schedule}
    for loss in LOSSES
    for schedule in SCHEDULES
}


@dataclass(frozen=True)
class Method:
    """The classifier with some parameters, as a function of a cell and a seed."""

    parameters: dict
    shuffled: bool = False

    def __call__(self, cell: Cell, seed: int) -> np.ndarray:
        return fit_predict(cell, seed, self.parameters, shuffled=self.shuffled)

    def prepare(self, split: Split) -> None:
        """Before the clock starts: a frozen encoder embeds all texts once per process."""
        if self.parameters.get("trainable_layers") == 0:
            _warm_up(split, tuple((k, v) for k, v in self.parameters.items() if k in EMBEDDING))


def fit_predict(
    cell: Cell, seed: int, parameters: dict, *, use_llm: bool = True, shuffled: bool = False
) -> np.ndarray:
    """Probabilities of the evaluated rows.

    Parameters
    ----------
    cell : Cell
    seed : int
    parameters : dict
        Of ``DialoguePreferenceClassifier``.
    use_llm : bool, default=True
    shuffled : bool, default=False
        Whether the voted rows exchange their votes at random: a useless teacher.
    """
    clf = DialoguePreferenceClassifier(classes=cell.classes, random_state=seed, **parameters)
    y_llm = teacher(cell, seed, shuffled) if use_llm else None
    clf.fit(cell.split.train, cell.y_human, y_llm)
    return clf.predict_proba(cell.split.evaluation)[cell.evaluated]


def teacher(cell: Cell, seed: int, shuffled: bool) -> np.ndarray:
    """Votes as the classifier takes them: (n, n_llms), or (n,) of a single LLM."""
    votes = cell.split.votes_train.to_numpy(dtype=object, copy=True)
    if shuffled:
        voted = np.flatnonzero(~np.isnan(cell.shares[:, 0]))
        votes[voted] = votes[np.random.default_rng(seed).permutation(voted)]
    return votes[:, 0] if votes.shape[1] == 1 else votes


@lru_cache(maxsize=2)
def _warm_up(split: Split, parameters: tuple[tuple[str, object], ...]) -> None:
    rows = split.train.iloc[:50]
    labels = np.resize(split.classes, len(rows)).astype(object)
    plain = {"schedule": "pretrain_finetune", "max_epochs": 1, "random_state": 0}
    clf = DialoguePreferenceClassifier(**plain, **dict(parameters)).fit(rows, labels)
    clf.predict_proba(split.train)
    clf.predict_proba(split.evaluation)


OURS = {
    student: {
        **{name: Method({**own, **parameters}) for name, parameters in VARIANTS.items()},
        "default_shuffled": Method(own, shuffled=True),
    }
    for student, own in STUDENTS.items()
}

# what is run at one number of labels only
ABLATIONS = [name for name in OURS["frozen"] if name != "default"]
