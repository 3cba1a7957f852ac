"""Predictions of Spark DataFrames."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .blocks import ROW, whole_dialogues
from .predictor import DialoguePredictor, planned

__all__ = ["predict_spark"]


def predict_spark(df: Any, model: str | os.PathLike[str], output: str = "label") -> Any:
    """Predict a Spark DataFrame in the Python workers of its executors.

    Nothing is computed yet. A classifier without ``context_turns`` predicts partition by
    partition, in arrow batches. For one with context the table is first repartitioned by
    ``dialogue_id`` and sorted in its partitions, so that dialogues are whole.

    Parameters
    ----------
    df : pyspark.sql.DataFrame
        Utterances, with columns as ``DialoguePreferenceClassifier.predict`` takes them, and
        any others.
    model : str or Path
        Folder of a saved or exported classifier, which every executor and this process can read.
    output : {"label", "proba"}, default="label"
        See :class:`DialoguePredictor`.

    Returns
    -------
    pyspark.sql.DataFrame
        ``df`` with the columns of the predictions. As after any shuffle in Spark the rows have no
        order.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As of :class:`DialoguePredictor`, most of them before anything is computed.

    Notes
    -----
    Without a column ``turn``, the order of a dialogue's rows is that in which Spark reads them.

    Examples
    --------
    >>> from sklearn_dialpref.distributed import predict_spark
    >>> df = spark.read.parquet("utterances/")  # doctest: +SKIP
    >>> predict_spark(df, "models/sentiment").write.parquet("labelled/")  # doctest: +SKIP
    """
    if not hasattr(df, "mapInArrow"):
        raise TypeError(
            f"df must be a pyspark.sql.DataFrame, but got a {type(df).__name__}; make one by "
            "spark.createDataFrame, or pass it to predict of the classifier"
        )
    from pyspark.sql import functions as F
    from pyspark.sql.types import StructField, StructType

    predictor = DialoguePredictor(model, output)
    described, added = planned(predictor, df.columns)
    fields = [StructField(name, _spark_type(dtype)) for name, dtype in added.items()]
    schema, whole = StructType([*df.schema.fields, *fields]), bool(described.context_turns)
    if whole:
        numbered = df.withColumn(ROW, F.monotonically_increasing_id())
        df = numbered.repartition("dialogue_id").sortWithinPartitions("dialogue_id", ROW)
    with warnings.catch_warnings():  # that it does not support pandas 3, which has no part in it
        warnings.filterwarnings("ignore", "PySpark does not yet fully support", FutureWarning)
        return df.mapInArrow(PredictBatches(predictor, whole), schema)


def _spark_type(dtype: Any) -> Any:
    import narwhals as nw
    from pyspark.sql import types

    spark_types = {
        nw.String: types.StringType,
        nw.Int64: types.LongType,
        nw.Float64: types.DoubleType,
        nw.Boolean: types.BooleanType,
    }
    return spark_types[dtype]()


@dataclass(frozen=True)
class PredictBatches:
    """From the arrow batches of a partition to those with predictions."""

    predictor: DialoguePredictor
    whole: bool

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        """As Spark's ``mapInArrow`` wants it."""
        import pyarrow as pa

        blocks = (pa.Table.from_batches([batch]) for batch in batches)
        for block in whole_dialogues(blocks) if self.whole else blocks:
            table = self.predictor(block)
            yield from (table.drop_columns([ROW]) if self.whole else table).to_batches()
