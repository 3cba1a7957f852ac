"""Predictions of Ray Datasets."""

from __future__ import annotations

import os
import zlib
from functools import partial
from typing import Any

from sklearn_dialpref._dialogues.containers import series_array

from .blocks import ROW, eager_frame, in_row_order
from .predictor import DialoguePredictor, planned

__all__ = ["predict_ray"]

BUCKET = "_dialpref_bucket"
BATCH_ROWS = 4096  # without context


def predict_ray(
    ds: Any,
    model: str | os.PathLike[str],
    output: str = "label",
    concurrency: int | None = None,
) -> Any:
    """Predict a Ray Dataset in a pool of actors, each of which loads the model once.

    Nothing is computed yet. A classifier without ``context_turns`` predicts batch by batch. For
    one with context the table is shuffled by ``dialogue_id``, so that dialogues are whole, and
    sorted back.

    Parameters
    ----------
    ds : ray.data.Dataset
        Utterances, with columns as ``DialoguePreferenceClassifier.predict`` takes them, and
        any others.
    model : str or Path
        Folder of a saved or exported classifier, which every node and this process can read.
    output : {"label", "proba"}, default="label"
        See :class:`DialoguePredictor`.
    concurrency : int, default=None
        How many actors there are; None lets Ray choose, by the work and the free processors.

    Returns
    -------
    ray.data.Dataset
        ``ds`` with the columns of the predictions, its rows in the order of ``ds``: Ray Data's
        option ``preserve_order`` is switched on for ``ds`` and what is made of it.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As of :class:`DialoguePredictor`, where Ray knows the columns before anything is computed.

    Notes
    -----
    With context, dialogues are dealt to as many groups as
    ``DataContext.default_hash_shuffle_parallelism`` says (200), each of which is predicted at
    once: more of them take less memory, fewer less time.

    Examples
    --------
    >>> import ray  # doctest: +SKIP
    >>> from sklearn_dialpref.distributed import predict_ray
    >>> ds = ray.data.read_parquet("utterances/")  # doctest: +SKIP
    >>> predict_ray(ds, "models/sentiment").write_parquet("labelled/")  # doctest: +SKIP
    """
    from ray.data import ActorPoolStrategy, Dataset
    from ray.data.expressions import monotonically_increasing_id

    if not isinstance(ds, Dataset):
        raise TypeError(
            f"ds must be a ray.data.Dataset, but got a {type(ds).__name__}; make one by "
            "ray.data.from_pandas, or pass it to predict of the classifier"
        )
    predictor = DialoguePredictor(model, output)
    schema = ds.schema(fetch_if_missing=False)
    names = ["dialogue_id", "text"] if schema is None else schema.names  # not known yet
    described, _ = planned(predictor, names)
    ds.context.execution_options.preserve_order = True
    actors: dict[str, Any] = {
        "fn_constructor_args": (predictor.path, output),
        "batch_format": "pyarrow",
        "compute": ActorPoolStrategy(size=concurrency),
    }
    if not described.context_turns:
        return ds.map_batches(DialoguePredictor, batch_size=BATCH_ROWS, **actors)
    groups = ds.context.default_hash_shuffle_parallelism
    deal = partial(_dealt, groups=groups)
    dealt = ds.map_batches(deal, batch_format="pyarrow", batch_size=None)
    # after it, as blocks are of arrow then: of pandas blocks Ray 2.60 numbers some rows only
    dealt = dealt.with_column(ROW, monotonically_increasing_id())
    if concurrency is not None:  # actors that hold all processors would block the shuffle
        actors["num_cpus"] = 0.5
    predicted = dealt.groupby(BUCKET).map_groups(PredictInRowOrder, **actors)
    return predicted.sort(ROW).drop_columns([ROW, BUCKET])


def _dealt(block: Any, groups: int) -> Any:
    """The rows with the number of a group: a function's call for each dialogue takes too long."""
    import pyarrow as pa

    ids = series_array(eager_frame(block).get_column("dialogue_id")).tolist()
    buckets = [zlib.crc32(str(one).encode(errors="replace")) % groups for one in ids]
    return block.append_column(BUCKET, pa.array(buckets, pa.int32()))


class PredictInRowOrder(DialoguePredictor):
    """Whole dialogues, whose rows a shuffle has mixed."""

    def __call__(self, block: Any) -> Any:
        """As of :class:`DialoguePredictor`, the rows in the order of the table."""
        return super().__call__(in_row_order(block))
