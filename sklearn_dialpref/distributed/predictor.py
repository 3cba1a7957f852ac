"""A picklable function from a block of a table to the block with predictions."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .blocks import Block, check_columns
from .models import OUTPUTS, Described, describe, load

__all__ = ["DialoguePredictor"]


@dataclass(frozen=True)
class DialoguePredictor:
    """Predicts the blocks of a table in the workers of a cluster.

    It is a path and a word, and so are its pickles: each worker process loads the model itself,
    once, and anew when the folder is replaced. Map it over the blocks of any engine; the
    functions of ``sklearn_dialpref.distributed`` do so for Dask, Ray, Spark and polars, and
    keep dialogues whole.

    Parameters
    ----------
    path : str or Path
        Folder of a classifier that ``DialoguePreferenceClassifier.save`` or
        ``export_onnx`` wrote. Every worker must be able to read it.
    output : {"label", "proba"}, default="label"
        What is appended to a block: a column ``label``, or columns ``proba_<class>`` of floats;
        of a multilabel classifier columns ``label_<name>`` of 0 and 1, or ``proba_<name>``.

    Raises
    ------
    ValueError
        If ``output`` is neither.

    See Also
    --------
    predict_dask, predict_ray, predict_spark, predict_polars

    Notes
    -----
    An exported model takes as many threads as ``OMP_NUM_THREADS`` says, which engines set for
    their workers, or else all. A saved one predicts in one thread of a process at a time, and
    torch obeys the same variable.

    Examples
    --------
    >>> import pickle
    >>> from sklearn_dialpref.distributed import DialoguePredictor
    >>> predict = DialoguePredictor("models/sentiment")
    >>> len(pickle.dumps(predict)) < 200
    True
    >>> ddf.map_partitions(predict, meta={**ddf.dtypes, "label": "str"})  # doctest: +SKIP
    """

    path: str
    output: str = "label"

    def __init__(self, path: str | os.PathLike[str], output: str = "label") -> None:
        if output not in OUTPUTS:
            raise ValueError(f"output must be 'label' or 'proba', got {output!r}")
        # workers have other working directories
        object.__setattr__(self, "path", os.path.abspath(Path(path).expanduser()))
        object.__setattr__(self, "output", output)

    def __call__(self, block: Any) -> Any:
        """Append predictions to a block.

        Parameters
        ----------
        block : DataFrame, Table, RecordBatch or dict of ndarray
            Utterances, with columns as ``DialoguePreferenceClassifier.predict`` takes them,
            of pandas, polars, pyarrow or, by name, numpy. Of a classifier with ``context_turns``
            the dialogues must be whole. Other columns are kept.

        Returns
        -------
        DataFrame, Table, RecordBatch or dict of ndarray
            The same rows in the same order, and the same index; no rows give no rows.

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        TypeError
            If the block has another form.
        ValueError
            If columns are missing or have the names of predictions, the classifier is one of
            features, or the utterances or the folder are not as they must be.

        Warns
        -----
        UserWarning
            If the block lacks utterances that ``context_turns`` would show.
        """
        model, given = load(self.path), Block(block)
        added = added_columns(self, model)
        if not len(given):  # engines have blocks without rows, and even without columns
            return given.with_columns(added, [np.empty(0)] * len(added))
        check_columns(given.columns, added)
        return given.with_columns(added, model.predictions(given.rows, self.output))


def added_columns(predictor: DialoguePredictor, model: Described) -> dict[str, Any]:
    """The columns of predictions with their narwhals types; a ValueError for features."""
    if not model.labels.n_texts:
        raise ValueError(
            f"{predictor.path} holds a classifier of precomputed features, but a table of an "
            "engine holds texts; such a classifier is small: map its own predict over the blocks"
        )
    return model.columns(predictor.output)


def planned(predictor: DialoguePredictor, names: Collection[str]) -> tuple[Described, Any]:
    """What a table of these columns will get, known before any worker begins.

    Returns
    -------
    model : Described
    added : dict of narwhals types by column
    """
    model = describe(predictor.path)
    added = added_columns(predictor, model)
    check_columns(names, added)
    return model, added
