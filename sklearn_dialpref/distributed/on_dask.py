"""Predictions of Dask DataFrames."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .blocks import ROW, Block, in_row_order
from .predictor import DialoguePredictor, planned

__all__ = ["predict_dask"]

PARTITION = 2**40  # more than the rows of any


def predict_dask(ddf: Any, model: str | os.PathLike[str], output: str = "label") -> Any:
    """Predict a Dask DataFrame in the workers of its cluster.

    Nothing is computed yet. A classifier without ``context_turns`` predicts partition by
    partition. For one with context the table is first shuffled by ``dialogue_id``, so that
    dialogues are whole.

    Parameters
    ----------
    ddf : dask.dataframe.DataFrame
        Utterances, with columns as ``DialoguePreferenceClassifier.predict`` takes them, and
        any others.
    model : str or Path
        Folder of a saved or exported classifier, which every worker and this process can read.
    output : {"label", "proba"}, default="label"
        See :class:`DialoguePredictor`.

    Returns
    -------
    dask.dataframe.DataFrame
        ``ddf`` with the columns of the predictions. After a shuffle rows are in other partitions,
        whose divisions are not known, but each has the index that it had; utterances that share
        a partition keep their order.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As of :class:`DialoguePredictor`, most of them before anything is computed.

    Examples
    --------
    >>> import dask.dataframe as dd  # doctest: +SKIP
    >>> from sklearn_dialpref.distributed import predict_dask
    >>> ddf = dd.read_parquet("utterances/")  # doctest: +SKIP
    >>> predict_dask(ddf, "models/sentiment").to_parquet("labelled/")  # doctest: +SKIP
    """
    from dask.dataframe import DataFrame
    from dask.dataframe.dispatch import make_meta

    if not isinstance(ddf, DataFrame):
        raise TypeError(
            f"ddf must be a dask.dataframe.DataFrame, but got a {type(ddf).__name__}; make one by "
            "dask.dataframe.from_pandas, or pass it to predict of the classifier"
        )
    predictor = DialoguePredictor(model, output)
    described, added = planned(predictor, ddf.columns)
    before = make_meta(ddf)
    after = Block(before).with_columns(added, [np.empty(0)] * len(added))
    if not described.context_turns:
        return ddf.map_partitions(predictor, meta=after)
    numbered = ddf.map_partitions(_numbered, meta=_numbered(before))
    return numbered.shuffle("dialogue_id").map_partitions(_predicted, predictor, meta=after)


def _numbered(part: Any, partition_info: Any = None) -> Any:
    """The rows with their places in the table, since a shuffle does not keep their order."""
    first = PARTITION * (partition_info or {"number": 0})["number"]
    return part.assign(**{ROW: np.arange(first, first + len(part), dtype=np.int64)})


def _predicted(part: Any, predictor: DialoguePredictor) -> Any:
    return predictor(in_row_order(part)).drop(columns=ROW)
