"""Baselines that train the encoder itself."""

import logging
import tempfile

import numpy as np
from sklearn.linear_model import LogisticRegression

from .data import Cell
from .features import ENCODER
from .linear import all_classes

__all__ = ["FINE_TUNED", "setfit"]

# SetFit's default makes all pairs of the labels, whose number grows with their square
SETFIT_MAX_STEPS = 2000
SETFIT_BATCH = 16


def setfit(cell: Cell, seed: int, max_steps: int = SETFIT_MAX_STEPS) -> np.ndarray:
    """SetFit with its defaults on the human labels, its steps limited to ``max_steps``."""
    from datasets import Dataset, disable_progress_bars
    from setfit import SetFitModel, Trainer, TrainingArguments
    from transformers import ProgressCallback

    from sklearn_dialpref._student.encoders import load_encoder

    logging.getLogger("setfit").setLevel(logging.WARNING)
    disable_progress_bars()
    texts = cell.split.train["text"][cell.human].tolist()
    labels = cell.human_codes.tolist()
    counts = np.bincount(labels)
    alike = (counts * (counts - 1)).sum() // 2
    n_pairs = 2 * max(alike, len(labels) * (len(labels) - 1) // 2 - alike)
    options = {"max_steps": max_steps} if n_pairs / SETFIT_BATCH > max_steps else {}
    model = SetFitModel(model_body=load_encoder(ENCODER), model_head=LogisticRegression())
    data = Dataset.from_dict({"text": texts, "label": labels})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            batch_size=(SETFIT_BATCH, 2),
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            show_progress_bar=False,
            **options,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=data)
        trainer.st_trainer.remove_callback(ProgressCallback)
        trainer.train()
    rows = cell.split.evaluation["text"][cell.evaluated].tolist()
    proba = model.predict_proba(rows, as_numpy=True)
    return all_classes(proba, model.model_head.classes_, len(cell.classes))


FINE_TUNED = {
    "setfit": setfit,
}
