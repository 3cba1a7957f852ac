"""This package's classifier: its default, and ablations of its parts."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor
from torch.nn.functional import softplus

from sklearn_dialpref import DialoguePreferenceClassifier, with_context

from .data import Cell, Split

__all__ = ["ABLATIONS", "OURS", "STUDENTS", "Method"]

STUDENTS = {
    "frozen": {"trainable_layers": 0, "context_turns": 1},
    "fine-tuned": {"trainable_layers": None, "context_turns": 1},
}
# parameters on which the embeddings of a frozen encoder depend
EMBEDDING = ("encoder", "pooling", "trainable_layers", "context_turns")
LOSSES = ("noise_reduced", "soft_cross_entropy", "ranknet", "margin_mse", "robust")
SCHEDULES = ("pretrain_finetune", "joint", "distill_then_joint")


def constant_margin(logits: Tensor, scores: Tensor, pairs: Tensor, **options) -> Tensor:
    """``noise_reduced`` with a margin of one for each ordered pair, whatever its gap."""
    i, j = pairs
    gap, difference = scores[i] - scores[j], logits[i] - logits[j]
    loss = softplus(1 - gap.sign() * difference)[gap.abs() > 0]
    return loss.mean() if loss.numel() else logits.sum() * 0


# Pairs instead of distillation, as in the paper's abstract.
PAIRS = {"loss": "noise_reduced"}

# Parameters of each method, the default's first.
VARIANTS = (
    {
        "default": {},
        "default_and_pairs": {"pair_weight": 0.3},
        "default_and_heavy_pairs": {"pair_weight": 1.0},
        "default_sentence_embedding": {"pooling": "model"},
    }
    | {
        f"{loss}-{schedule}": {"loss": loss, "schedule": schedule}
        for loss in LOSSES
        for schedule in SCHEDULES
        if (loss, schedule) != ("soft_cross_entropy", "pretrain_finetune")  # the default
    }
    | {
        "pairs_without_margin": {**PAIRS, "margin_scale": 0.0},
        "pairs_constant_margin": {**PAIRS, "loss": constant_margin},
        "pairs_label_smoothing": {**PAIRS, "loss": "conservative"},
    }
)


@dataclass(frozen=True)
class Method:
    """The classifier with some parameters, as a function of a cell and a seed.

    Attributes
    ----------
    parameters : dict
        Of ``DialoguePreferenceClassifier``.
    use_llm : bool, default=True
    shuffled : bool, default=False
        Whether the voted rows exchange their votes at random: a useless teacher.
    one_llm : bool, default=False
        Whether only the first LLM votes.
    across : bool, default=False
        Whether the training utterances exchange their dialogues at random, and keep their
        context: pairs then go across dialogues.
    """

    parameters: dict
    use_llm: bool = True
    shuffled: bool = False
    one_llm: bool = False
    across: bool = False

    def __call__(self, cell: Cell, seed: int) -> np.ndarray:
        parameters = dict(self.parameters)
        train, evaluation = cell.split.train, cell.split.evaluation
        if self.across:
            turns = parameters.pop("context_turns")
            train, evaluation = (with_context(rows, turns) for rows in (train, evaluation))
            dialogue = np.random.default_rng(seed).permutation(train["dialogue_id"].to_numpy())
            train = train.assign(dialogue_id=dialogue, turn=np.arange(len(train)))
        clf = DialoguePreferenceClassifier(classes=cell.classes, random_state=seed, **parameters)
        clf.fit(train, cell.y_human, self.votes(cell, seed) if self.use_llm else None)
        return clf.predict_proba(evaluation)[cell.evaluated]

    def votes(self, cell: Cell, seed: int) -> np.ndarray:
        """Votes in the classifier's format: (n, n_llms), or (n,) for a single LLM."""
        votes = cell.split.votes_train.to_numpy(dtype=object, copy=True)
        if self.shuffled:
            voted = np.flatnonzero(~np.isnan(cell.shares[:, 0]))
            votes[voted] = votes[np.random.default_rng(seed).permutation(voted)]
        return votes[:, 0] if self.one_llm or votes.shape[1] == 1 else votes

    def prepare(self, split: Split) -> None:
        """Embed all texts with the frozen encoder, once per process, before time is measured."""
        if self.parameters.get("trainable_layers") == 0:
            _warm_up(split, tuple((k, v) for k, v in self.parameters.items() if k in EMBEDDING))


@lru_cache(maxsize=2)
def _warm_up(split: Split, parameters: tuple[tuple[str, object], ...]) -> None:
    rows = split.train.iloc[:50]
    labels = np.resize(split.classes, len(rows)).astype(object)
    plain = {"max_epochs": 1, "random_state": 0}
    clf = DialoguePreferenceClassifier(**plain, **dict(parameters)).fit(rows, labels)
    clf.predict_proba(split.train)
    clf.predict_proba(split.evaluation)


OURS = {
    student: {
        **{name: Method({**own, **parameters}) for name, parameters in VARIANTS.items()},
        "default_shuffled": Method(own, shuffled=True),
        "default_human_only": Method(own, use_llm=False),
        "default_one_llm": Method(own, one_llm=True),
        "pairs_one_llm": Method({**own, **PAIRS}, one_llm=True),
        "pairs_across_dialogues": Method({**own, **PAIRS}, across=True),
    }
    for student, own in STUDENTS.items()
}

# these run at every number of labels; the others at one only
ALWAYS = ("default", "default_and_pairs", "default_human_only", "default_shuffled")
ABLATIONS = [name for name in OURS["frozen"] if name not in ALWAYS]
