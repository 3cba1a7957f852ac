"""Predictions where the table is: Dask, Ray Data, Spark, and tables larger than memory.

A classifier is saved or exported once to a folder that all workers can read. What is sent to them
is its path: each process loads the model itself, once. :class:`DialoguePredictor` is that function
from a block of a table to the block with predictions, for any engine; :func:`predict_dask`,
:func:`predict_ray`, :func:`predict_spark` and :func:`predict_polars` map it over a whole table,
and keep dialogues whole where the classifier uses context. The engines are imported when they are
used.

Notes
-----
An :class:`LLMAnnotator` labels partitions in the same way, by a function that makes one in the
worker::

    def label(part):
        if part.empty:
            return part.assign(llm=part["text"])
        annotator = LLMAnnotator(
            ["complaint", "thanks"], "my-model", base_url=url, cache="/local/answers.sqlite",
            prices=(0.1, 0.4), budget=total / n_workers,
        )
        return part.assign(llm=annotator.fit(part).predict(part))

    whole = ddf.shuffle("dialogue_id", npartitions=n_workers)
    whole.map_partitions(label, meta={**ddf.dtypes, "llm": "str"})

Prompts show the utterances around each one, so dialogues have to be whole: hence the shuffle. The
rule of the cache is that of one machine: processes that name the same file share its answers and
the work, and no question is paid for twice. Give each machine a file on its own disk, as sqlite
does not lock safely on network drives. ``budget``, ``token_budget`` and the rates hold for one
pass, which here is one partition: with as many partitions as workers, each worker has one budget,
and all of them together spend at most the total. A partition that is lost with its worker is
labelled again, with a new budget: answers that the file has cost nothing, but calls that were
under way are made again.
"""

from .on_dask import predict_dask
from .on_polars import predict_polars
from .on_ray import predict_ray
from .on_spark import predict_spark
from .predictor import DialoguePredictor

__all__ = [
    "DialoguePredictor",
    "predict_dask",
    "predict_polars",
    "predict_ray",
    "predict_spark",
]
