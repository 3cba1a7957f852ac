"""Blocks of a table: what is appended to them, their row order, and dialogues that stay whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.containers import series_array
from sklearn_dialpref._dialogues.validation import RESERVED

ROW = "_dialpref_row"  # the place of a row in the whole table, while that is shuffled
NUMPY: dict[Any, Any] = {
    nw.String: object,
    nw.Int64: np.int64,
    nw.Float64: np.float64,
    nw.Boolean: np.bool_,
}
FORMS = (
    "a DataFrame of pandas or polars, a Table or RecordBatch of pyarrow, or a dict of numpy arrays"
)


class Block:
    """A block of any form, as the rows that a classifier takes and a place for its predictions.

    Parameters
    ----------
    native : DataFrame, Table, RecordBatch or dict of ndarray
    """

    def __init__(self, native: Any) -> None:
        self.native = native
        self.is_batch = type(native).__name__ == "RecordBatch"
        if isinstance(native, Mapping):
            import pandas as pd

            # arrays of several dimensions are other columns, which no classifier reads
            native = pd.DataFrame({name: native[name] for name in RESERVED if name in native})
        elif self.is_batch:
            import pyarrow as pa

            native = pa.Table.from_batches([native])
        self.frame = eager_frame(native)

    @property
    def columns(self) -> list[str]:
        """Their names."""
        names = self.native if isinstance(self.native, Mapping) else self.frame.columns
        return [str(name) for name in names]

    @property
    def rows(self) -> Any:
        """What a classifier predicts."""
        return self.frame.to_native()

    def __len__(self) -> int:
        if isinstance(self.native, Mapping):
            return len(next(iter(self.native.values()), ()))
        return len(self.frame)

    def with_columns(self, types: Mapping[str, Any], values: Sequence[NDArray[Any]]) -> Any:
        """The block in its own form, with these columns after its own."""
        if isinstance(self.native, Mapping):
            arrays = [
                np.array(column.tolist(), dtype=NUMPY[dtype])
                for dtype, column in zip(types.values(), values, strict=True)
            ]
            return {**self.native, **dict(zip(types, arrays, strict=True))}
        added = [
            nw.new_series(name, column.tolist(), dtype, backend=self.frame.implementation)
            for (name, dtype), column in zip(types.items(), values, strict=True)
        ]
        table = self.frame.with_columns(*added).to_native()
        return _as_batch(table) if self.is_batch else table


def _as_batch(table: Any) -> Any:
    import pyarrow as pa

    columns = [pa.concat_arrays(column.chunks) for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def eager_frame(native: Any) -> nw.DataFrame[Any]:
    """The block as a narwhals frame; a TypeError of anything else."""
    try:
        return nw.from_native(native, eager_only=True)
    except TypeError:
        raise TypeError(
            f"a block must be {FORMS}, but got a {type(native).__name__}; for tables of an "
            "engine use predict_dask, predict_ray, predict_spark or predict_polars"
        ) from None


def check_columns(names: Collection[str], added: Collection[str]) -> None:
    """Raise a ValueError unless these columns can be predicted and added to."""
    if missing := {"dialogue_id", "text"} - set(names):
        raise ValueError(
            f"the table lacks the column(s) {sorted(missing)}; it has {list(names)[:20]}. "
            "Rename yours to 'dialogue_id' and 'text'"
        )
    if there := sorted(set(names) & set(added)):
        raise ValueError(
            f"the table has the column(s) {there} already, which predictions are called; rename "
            "or drop them"
        )


def in_row_order(block: Any) -> Any:
    """The rows of a shuffled block as they stood in the whole table."""
    return eager_frame(block).sort(ROW).to_native()


def whole_dialogues(blocks: Iterable[Any]) -> Iterator[Any]:
    """Cut blocks where dialogues end, of a table whose dialogues stand one after the other.

    Parameters
    ----------
    blocks : iterable of DataFrame or Table

    Yields
    ------
    DataFrame or Table
        All rows in their order; only the blocks end elsewhere.

    Raises
    ------
    ValueError
        If a dialogue goes on after others.
    """
    closed: set[Any] = set()
    pending: list[nw.DataFrame[Any]] = []
    last: Any = None
    for block in blocks:
        frame = eager_frame(block)
        ids = series_array(frame.get_column("dialogue_id"))
        if not len(ids):
            continue
        start = int(np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])[-1])  # of its last dialogue
        if start or (pending and ids[0] != last):
            yield _closed([*pending, frame[:start]], closed)
            pending, frame = [], frame[start:]
        pending.append(frame)
        last = ids[-1]
    if pending:
        yield _closed(pending, closed)


def _closed(frames: list[nw.DataFrame[Any]], closed: set[Any]) -> Any:
    """The frames as one, whose dialogues must not have been in an earlier one."""
    frame = nw.concat(frames)
    ids = set(series_array(frame.get_column("dialogue_id")).tolist())
    if again := closed & ids:
        raise ValueError(
            f"the rows of dialogue {next(iter(again))!r} do not stand together, so that its "
            "context would be cut off; sort the table first, such as by "
            "lf.sort('dialogue_id', maintain_order=True)"
        )
    closed |= ids
    return frame.to_native()
