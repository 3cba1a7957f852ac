"""Predictions of polars LazyFrames, in constant memory on one machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from .blocks import whole_dialogues
from .predictor import DialoguePredictor, planned

__all__ = ["predict_polars"]

BATCH_ROWS = 10_000


def predict_polars(lf: Any, model: str | os.PathLike[str], output: str = "label") -> Iterator[Any]:
    """Predict a polars LazyFrame part by part, so that it need not fit into memory.

    Parameters
    ----------
    lf : polars.LazyFrame
        Utterances, with columns as :meth:`DialoguePreferenceClassifier.predict` takes them, and
        any others. For a classifier with ``context_turns`` the rows of a dialogue must stand
        together.
    model : str or Path
        Folder of a saved or exported classifier.
    output : {"label", "proba"}, default="label"
        See :class:`DialoguePredictor`.

    Returns
    -------
    iterator of polars.DataFrame
        ``lf`` with the columns of the predictions, in its order and in parts of about 10,000
        rows; with context, of whole dialogues. There is at least one part.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As of :class:`DialoguePredictor`, most of them before anything is read. On the way, a
        ValueError if context is used and a dialogue goes on after others.

    Examples
    --------
    >>> import polars as pl
    >>> from sklearn_dialpref.distributed import predict_polars
    >>> import tempfile
    >>> from sklearn_dialpref import DialoguePreferenceClassifier
    >>> X, y = ["Where is my parcel?", "It is broken.", "Thanks!", "Great."], [0, 0, 1, 1]
    >>> clf = DialoguePreferenceClassifier(random_state=0).fit(X, y)
    >>> lf = pl.LazyFrame({"dialogue_id": ["a", "a", "b", "b"], "text": X})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clf.save(f"{folder}/model")
    ...     for part in predict_polars(lf, f"{folder}/model"):
    ...         print(part["label"].to_list())
    [0, 0, 1, 1]
    """
    import polars as pl

    if not isinstance(lf, pl.LazyFrame):
        raise TypeError(
            f"lf must be a polars.LazyFrame, but got a {type(lf).__name__}; pass it to predict of "
            "the classifier"
        )
    predictor = DialoguePredictor(model, output)
    schema = lf.collect_schema()
    described, _ = planned(predictor, schema.names())
    return _parts(lf, predictor, bool(described.context_turns), pl.DataFrame(schema=schema))


def _parts(lf: Any, predictor: DialoguePredictor, whole: bool, empty: Any) -> Iterator[Any]:
    batches = lf.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True)
    n_rows = 0
    for part in whole_dialogues(batches) if whole else batches:
        if len(part):
            n_rows += len(part)
            yield predictor(part)
    if not n_rows:
        yield predictor(empty)
