"""Training on the processes of an ``accelerate.Accelerator``, each embedding its share of a batch.

A loss on pairs or with weights is no mean of the losses of a batch's parts, so that to split a
batch by rows would train another model. Embedding is what takes the time. So all processes draw
the same batches; each embeds some of a batch's chunks of texts and gathers the others'; then all
compute the same loss, and the gradients that come back to each one's chunks are summed. The
student is that of a single process, for every loss.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from skorch import NeuralNet
from torch import Tensor

from sklearn_dialpref._dialogues.validation import Dialogues
from sklearn_dialpref._labels.targets import Targets
from sklearn_dialpref._student.student import Chunk, Embed

from .device import torch_device

KINDS = ("NO", "MULTI_CPU", "MULTI_GPU")  # of what accelerate calls a distributed type
OWN_AFFAIR = ("memory", "n_jobs", "checkpoint_dir", "device", "random_state", "verbose")

Result = TypeVar("Result")


# -- before training --------------------------------------------------------------------------


def start_together(
    estimator: Any, dialogues: Dialogues, slots: Sequence[NDArray[Any]], targets: Targets
) -> tuple[int, str]:
    """A seed that all processes of the estimator's accelerator share, and this one's device.

    Without an accelerator these are its own. Raises a ValueError, in all processes, where they
    were not given the same parameters, X and labels.
    """
    seed = check_random_state(estimator.random_state).randint(2**31 - 1)
    accelerator = estimator.accelerator
    if accelerator is None:
        return seed, torch_device(estimator.device)
    _check_kind(accelerator)
    own = torch.device(accelerator.device)
    device = "cpu" if own.type == "cpu" else str(own)
    if accelerator.num_processes == 1:
        return seed, device
    digests = {
        "parameters": joblib.hash(_plain_parameters(estimator)),
        "X": joblib.hash([dialogues.group, dialogues.features, list(slots)]),
        "y_human": joblib.hash([targets.classes, targets.human, targets.possible]),
        "y_llm": joblib.hash([targets.classes, targets.scores]),
    }
    given: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(given, (seed, digests))
    _check_same([digests for _, digests in given])
    return given[0][0], device


def _check_kind(accelerator: Any) -> None:
    kind = getattr(accelerator.distributed_type, "value", accelerator.distributed_type)
    if kind not in KINDS:
        raise ValueError(
            f"accelerator has distributed_type={kind}, but the student trains on one process or "
            "several of CPUs or CUDA GPUs, without DeepSpeed, FSDP and the like"
        )
    if accelerator.mixed_precision != "no":
        raise ValueError(
            f"accelerator has mixed_precision={accelerator.mixed_precision!r}, but the student "
            "uses bfloat16 by itself where the device is fast with it; pass "
            "Accelerator(mixed_precision='no')"
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            "accelerator has gradient_accumulation_steps="
            f"{accelerator.gradient_accumulation_steps}; set batch_size instead, as the loss of "
            "a batch is not the mean of its parts'"
        )
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched > accelerator.num_processes:
        raise ValueError(
            f"this is one of {launched} processes, but accelerator knows of "
            f"{accelerator.num_processes}, so that each would train a model of its own; on CPUs "
            "make it by Accelerator(cpu=True)"
        )


def _plain_parameters(estimator: Any) -> dict[str, str]:
    """Parameters as text; what an object, or a machine's own affair, is not compared."""
    return {
        name: repr(value)
        for name, value in estimator.get_params(deep=False).items()
        if name not in OWN_AFFAIR
        and isinstance(value, str | Path | int | float | list | tuple | dict | None)
        and name != "callbacks"
    }


def _check_same(digests: Sequence[dict[str, str]]) -> None:
    """Raise a ValueError that names what is not the same in all processes."""
    for number, others in enumerate(digests):
        differing = [name for name, digest in digests[0].items() if others[name] != digest]
        if differing:
            raise ValueError(
                f"{' and '.join(differing)} of process {number} differ from those of process 0; "
                "pass the same to fit in every process, as they share the work on each batch, "
                "not the rows"
            )


# -- training ---------------------------------------------------------------------------------


class SharesEmbedding(NeuralNet):
    """Mixin for a net of a student with an encoder, of which each process embeds a share.

    Parameters
    ----------
    *args, **kwargs
        As of the net.
    accelerator : accelerate.Accelerator
    """

    _sums: Tensor | None = None  # all gradients in a row

    def __init__(self, *args: Any, accelerator: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.accelerator = accelerator

    @property
    def _shares(self) -> bool:
        return self.accelerator.num_processes > 1 and self.module_.encoder is not None

    def initialize(self) -> SharesEmbedding:
        """All start from the first one's weights, however their machines round."""
        super().initialize()
        if self._shares:
            weights = [w for w in self.module_.state_dict().values() if w.is_floating_point()]
            flat = _flat(weights)
            torch.distributed.broadcast(flat, src=0)
            for weight, new in zip(weights, _pieces(flat, weights), strict=True):
                weight.copy_(new)
        return self

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        super().on_train_end(net, X=X, y=y, **kwargs)
        self._sums = None

    def infer(self, x: Any, **fit_params: Any) -> Tensor:
        if self.module_.encoder is not None:
            fit_params = {**fit_params, "spread": self._spread}
        return super().infer(x, **fit_params)

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        step = super().train_step_single(batch, **fit_params)
        return {**step, "loss": self._add_up(step["loss"].detach())} if self._shares else step

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        step = super().validation_step(batch, **fit_params)
        if self._shares:  # early stopping must come to the same end everywhere
            step["loss"] = self.accelerator.reduce(step["loss"], "mean")
        return step

    def save_params(self, *args: Any, **kwargs: Any) -> None:
        """As skorch's, for callbacks such as Checkpoint; the first process writes."""
        if self.accelerator.is_main_process:
            super().save_params(*args, **kwargs)
        self.accelerator.wait_for_everyone()

    def _add_up(self, loss: Tensor) -> Tensor:
        """Sum the gradients of the encoder's shares; the mean of what all have: head and loss."""
        n_processes = self.accelerator.num_processes
        trained = [w for w in self.module_.named_parameters() if w[1].grad is not None]
        for name, weight in trained:
            if not name.startswith("encoder."):
                weight.grad /= n_processes
        gradients = [weight.grad for _, weight in trained]
        # small messages take as long as large ones, so that all go together
        self._sums = _flat([*gradients, loss / n_processes], self._sums)
        torch.distributed.all_reduce(self._sums)
        for (_, weight), total in zip(trained, _pieces(self._sums, gradients), strict=True):
            weight.grad = total.to(weight.dtype)
        return self._sums[-1].clone()

    def _spread(self, embed: Embed, chunks: Sequence[Chunk]) -> list[Tensor]:
        """The embeddings of all chunks; those of this process's own are part of the graph."""
        rank, n_processes = self.accelerator.process_index, self.accelerator.num_processes
        if len(chunks) == 1 and self.module_.encoder.device.type != "cpu":
            chunks = split_chunk(chunks[0], n_processes)  # a GPU takes a batch as one
        owner = share_out([chunk["input_ids"].numel() for chunk in chunks], n_processes)
        own = {}
        for place in np.flatnonzero(owner == rank).tolist():
            # the gradients of chunks are summed in float32, also where all are embedded here
            torch.clear_autocast_cache()
            own[place] = embed(place, chunks[place])
        rows = np.array([n_texts(chunk) for chunk in chunks])
        embedded = {**self._gathered(own, owner, rows), **own}
        if not own:
            # embedded for nothing: all processes need gradients of the same weights to add up
            embedded[0] = embedded[0] + 0.0 * embed(0, chunks[0]).sum()
        return [embedded[place] for place in range(len(chunks))]

    def _gathered(
        self, own: dict[int, Tensor], owner: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> dict[int, Tensor]:
        """The embeddings of all chunks as plain numbers, from who has embedded them."""
        n_rows = np.bincount(owner, rows, minlength=self.accelerator.num_processes).astype(int)
        encoder = self.module_.encoder
        padded = torch.zeros(int(n_rows.max()), encoder.n_outputs, device=encoder.device)
        if own:
            embedded = torch.cat(list(own.values())).detach()
            padded[: len(embedded)] = embedded
        gathered: dict[int, Tensor] = {}
        for process, part in enumerate(self.accelerator.gather(padded).split(len(padded))):
            places = np.flatnonzero(owner == process).tolist()
            of_chunks = part[: n_rows[process]].split(rows[places].tolist())
            gathered.update(zip(places, of_chunks, strict=True))
        return gathered


def share_out(costs: Sequence[int], n_processes: int) -> NDArray[np.int64]:
    """The process of each chunk, the most expensive chunk first to who has the least to do."""
    load = np.zeros(n_processes)
    owner = np.empty(len(costs), dtype=np.int64)
    for place in np.argsort(-np.asarray(costs), kind="stable"):
        owner[place] = load.argmin()
        load[owner[place]] += costs[place]
    return owner


def n_texts(chunk: Chunk) -> int:
    """How many texts a chunk has; a static model's is one row of tokens with offsets."""
    return len(chunk.get("offsets", chunk["input_ids"]))


def split_chunk(chunk: Chunk, n_parts: int) -> list[Chunk]:
    """A chunk of padded texts as up to ``n_parts`` of like size, padded no longer than needed."""
    if "offsets" in chunk:
        return [chunk]
    cut = {name: of.tensor_split(min(n_parts, n_texts(chunk))) for name, of in chunk.items()}
    parts = [dict(zip(cut, tensors, strict=True)) for tensors in zip(*cut.values(), strict=True)]
    used = [part["attention_mask"].any(dim=0) for part in parts]
    return [
        {name: of[:, columns] if of.ndim == 2 else of for name, of in part.items()}
        for part, columns in zip(parts, used, strict=True)
    ]


def _flat(tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """The tensors in a row, in the memory of ``out``: new memory takes longer than the copy."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors], out=out)


def _pieces(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The parts of a flat tensor in the shapes of others, which may be fewer than it has."""
    ends = np.cumsum([tensor.numel() for tensor in like])
    pieces = flat[: ends[-1]].split([tensor.numel() for tensor in like])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, like, strict=True)]


# -- after training ---------------------------------------------------------------------------


def on_main_process(accelerator: Any, write: Callable[[], Result]) -> Result:
    """What ``write`` returns or raises, in all processes; only the first one calls it."""
    if accelerator is None or accelerator.num_processes == 1:
        return write()
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = write()
        except Exception as error:
            outcome[1] = error
    try:
        torch.distributed.broadcast_object_list(outcome)
    except RuntimeError as error:
        raise outcome[1] or RuntimeError(
            "another process has ended without taking part; call save and export_onnx in every "
            "process, not only where accelerator.is_main_process"
        ) from error
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
