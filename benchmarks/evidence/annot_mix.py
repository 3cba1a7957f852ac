"""Annot-Mix of scikit-activeml: a network that learns how reliable each annotator is."""

import numpy as np
import torch
from torch import Tensor, nn

from .data import Cell
from .features import cell_features

__all__ = ["annot_mix"]

HIDDEN = 128
EPOCHS = 100
BATCH = 128
LEARNING_RATE = 0.01
SAMPLE_EMBEDDING = 2


class Classifier(nn.Module):
    """The network that scikit-activeml's README puts on sentence embeddings of MiniLM."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_features, HIDDEN)
        self.output = nn.Linear(HIDDEN, n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(x)
        return self.output(hidden.relu()), hidden


def annot_mix(cell: Cell, seed: int) -> np.ndarray:
    """Train Annot-Mix with each LLM as an annotator, and the people as one more.

    Optimiser, learning rate and epochs are those of the README of scikit-activeml 1.0.1. It trains
    on few labels in batches of 16; skorch's default of 128 was no worse here on validation
    dialogues. The size of the sample embedding is that of its tutorial on many annotators.
    """
    from skactiveml.classifier.multiannotator import AnnotMixClassifier
    from skorch.callbacks import LRScheduler
    from torch.optim.lr_scheduler import CosineAnnealingLR

    x, evaluated = cell_features(cell, "sentence")
    n_classes = len(cell.classes)
    torch.manual_seed(seed)
    model = AnnotMixClassifier(
        clf_module=Classifier,
        sample_embed_dim=SAMPLE_EMBEDDING,
        classes=np.arange(n_classes),
        missing_label=-1,
        random_state=seed,
        neural_net_param_dict={
            "module__n_features": x.shape[1],
            "module__n_classes": n_classes,
            "max_epochs": EPOCHS,
            "batch_size": BATCH,
            "optimizer": torch.optim.RAdam,
            "lr": LEARNING_RATE,
            "callbacks": [("rate", LRScheduler(policy=CosineAnnealingLR, T_max=EPOCHS))],
            "iterator_train__shuffle": True,
            "verbose": 0,
        },
    )
    labels = annotations(cell)
    known = (labels >= 0).any(axis=1)
    model.fit(x[known], labels[known])
    return model.predict_proba(evaluated)


def annotations(cell: Cell) -> np.ndarray:
    """Class codes by training row and annotator, the people last; -1 where there is no label."""
    place = {label: code for code, label in enumerate(cell.classes)}
    labels = cell.split.votes_train.assign(human=cell.y_human)
    return labels.apply(lambda column: column.map(place)).fillna(-1).to_numpy(dtype=int)
