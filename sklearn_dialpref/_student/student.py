"""The student: an encoder or precomputed features, and a small head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sklearn_dialpref._compat import fast_bfloat16

from .encoders import TextEncoder
from .frozen import FrozenEncoder
from .store import Embeddings

PART = 8192  # rows whose inputs are in memory at once


class EmbeddedRows:
    """What each row shows to the head, gathered from the embeddings where it is asked for.

    Parameters
    ----------
    embeddings : Embeddings or ndarray of shape (n_texts, n_outputs)
    index : ndarray of shape (n_rows, n_slots)
        Places of each row's utterance and contexts; -1 for no context.
    n_context : int
        How many of the last columns stand for a context.
    """

    def __init__(
        self,
        embeddings: Embeddings | NDArray[np.float32],
        index: NDArray[np.int64],
        n_context: int,
    ) -> None:
        self.embeddings, self.index, self.n_context = embeddings, index, n_context
        width = embeddings.shape[1] + (index.shape[1] - 1) * n_context
        self.shape = len(index), width

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Any) -> Tensor:
        """The inputs of these rows; a slice, numbers, or a mask."""
        index = self.index[rows]
        own = self.embeddings[index[:, 0]]
        if index.shape[1] == 1:
            return torch.from_numpy(own)
        inputs = np.zeros((len(index), self.shape[1]), dtype=np.float32)
        inputs[:, : own.shape[1]] = own
        contexts = inputs[:, own.shape[1] :].reshape(len(index), -1, self.n_context)
        shown = index[:, 1:] >= 0
        contexts[shown] = self.embeddings[index[:, 1:][shown]][:, -self.n_context :]
        return torch.from_numpy(inputs)


def embedded_rows(
    encoder: TextEncoder | FrozenEncoder, texts: Sequence[str], index: NDArray[np.int64]
) -> EmbeddedRows:
    """The embeddings of each row's texts side by side; each text is encoded once."""
    return EmbeddedRows(encoder.table(texts), index, encoder.n_context)


def in_parts(
    inputs: Tensor | EmbeddedRows, rows: NDArray[np.int64] | None = None
) -> Iterator[Tensor]:
    """The inputs of all rows or of these, some at a time."""
    n_rows = len(inputs) if rows is None else len(rows)
    for start in range(0, n_rows, PART):
        part = slice(start, start + PART)
        yield inputs[part if rows is None else rows[part]]


def side_by_side(embedded: Tensor, index: Tensor, n_context: int) -> Tensor:
    """As :class:`EmbeddedRows`, of embeddings that are trained.

    Parameters
    ----------
    embedded : Tensor of shape (n_texts, n_outputs)
    index : Tensor of shape (n_rows, n_slots)
        Places of each row's utterance and contexts; -1 or ``n_texts`` for no context.
    n_context : int
        How many of the last columns stand for a context.
    """
    own = embedded[index[:, 0]]
    if index.shape[1] == 1:
        return own
    context = nn.functional.pad(embedded[:, -n_context:], (0, 0, 0, 1))  # a row of zeros
    return torch.cat([own, context[index[:, 1:]].flatten(1)], dim=1)


def mean_and_variance(inputs: Tensor | EmbeddedRows) -> tuple[Tensor, Tensor]:
    """Of each column, in double precision, from a part of the rows at a time.

    By the pairwise formula of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm
    for computing sample variances", 1979), which loses nothing where means are large.
    """
    n, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for part in in_parts(inputs):
        values = part.double()
        own_mean = values.mean(dim=0)
        step, share = own_mean - mean, len(values) / (n + len(values))
        own_squares = (values - own_mean).square_().sum(dim=0)
        squares = squares + own_squares + step.square() * n * share
        mean = mean + step * share
        n += len(values)
    return mean, squares / n


Chunk = dict[str, Tensor]  # the tokens of some texts
Embed = Callable[[int, Chunk], Tensor]  # of a chunk's place and the chunk
Spread = Callable[[Embed, Sequence[Chunk]], list[Tensor]]


def in_turn(embed: Embed, chunks: Sequence[Chunk]) -> list[Tensor]:
    """The embeddings of chunks, one after the other."""
    return [embed(place, chunk) for place, chunk in enumerate(chunks)]


def _embed(encoder: TextEncoder, seed: int | None, place: int, chunk: Chunk) -> Tensor:
    if seed is None:
        return encoder(chunk)
    with _drawing_from(seed + place, encoder.device):
        return encoder(chunk)


@contextmanager
def _drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of the device from a seed; after the block they go on as before it."""
    generator = torch.default_generator
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator = torch.cuda.default_generators[index]
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


class Dropout(nn.Dropout):
    """As torch's, but a half is dropped with one random bit per input.

    torch draws a random number for each, which on CPUs takes longer than the rest of a step.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.p != 0.5:
            return super().forward(inputs)
        n = inputs.numel()
        drawn = torch.empty(-(-n // 8), dtype=torch.int64, device=inputs.device).random_()
        # the lowest bit of each byte: the highest of all, the sign, is never set
        mask = drawn.view(torch.uint8)[:n].view(inputs.shape).bitwise_and(1)
        return inputs * mask.mul(2)


class Head(nn.Sequential):
    """From standardised features to logits.

    Attributes
    ----------
    level : Tensor of shape (n_classes,)
        What the logits begin with, where weights are new.
    """

    level: Tensor

    def __init__(self, n_inputs: int, n_classes: int, width: int, dropout: float) -> None:
        super().__init__(
            Dropout(dropout),
            nn.Linear(n_inputs, width),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(width, n_classes),
        )
        self.register_buffer("level", torch.zeros(n_classes), persistent=False)

    @property
    def output(self) -> nn.Linear:
        """The last layer."""
        layer = self[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def set_prior_logits(self, level: Tensor) -> None:
        """Begin with these logits in place of those that it began with."""
        level = level.to(self.level.device)
        with torch.no_grad():
            self.output.bias.add_(level - self.level)
        self.level = level


class Student(nn.Module):
    """Standardised features or embeddings through a small head to one logit per class.

    Parameters
    ----------
    n_inputs, n_classes : int
        Width of the features, and number of classes.
    encoder : TextEncoder or None, default=None
        The encoder that is trained with the head; None where features are precomputed.
    width : int
        Of the head's hidden layer.
    dropout : float, default=0.0
        Share of its inputs that each layer of the head drops in training.
    """

    def __init__(
        self,
        n_inputs: int,
        n_classes: int,
        encoder: TextEncoder | None = None,
        *,
        width: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", torch.zeros(n_inputs))
        self.register_buffer("scale", torch.ones(n_inputs))
        self.head = Head(n_inputs, n_classes, width, dropout)

    def standardise_by(self, features: Tensor | EmbeddedRows) -> None:
        """Set mean and scale of the inputs; that of columns constant but for rounding is ≥ 1.

        Raises a ValueError where they are beyond float32.
        """
        mean, variance = mean_and_variance(features)
        self.mean = mean.float()
        scale = variance.sqrt().float()
        size = self.mean.abs()
        rounding = 1e-8 + 2.5e-7 * size  # two steps of a float32
        self.scale = torch.where(scale > rounding, scale, size.clamp(min=1))
        beyond = ~(self.mean.isfinite() & variance.float().isfinite())
        if beyond.any():
            column = int(beyond.int().argmax())
            largest = max(float(part[:, column].abs().max()) for part in in_parts(features))
            raise ValueError(
                f"the inputs cannot be standardised in float32: feature {column} has values of up "
                f"to {largest:.3g} in size; rescale it, such as by StandardScaler or a logarithm"
            )

    def standardised(self, features: Tensor) -> Tensor:
        """What the head takes, on the device of the features."""
        device = features.device
        return (features - self.mean.to(device)) / self.scale.to(device)

    def without_encoder(self) -> Student:
        """A student of precomputed inputs that shares this one's head."""
        if self.encoder is None:
            return self
        bare = Student(
            len(self.mean), self.head.output.out_features, width=self.head.output.in_features
        )
        bare.mean, bare.scale, bare.head = self.mean, self.scale, self.head
        return bare

    def forward(
        self,
        features: Tensor | None = None,
        tokens: list[dict[str, Tensor]] | None = None,
        index: Tensor | None = None,
        spread: Spread | None = None,
    ) -> Tensor:
        """Logits, from features or from chunks of distinct texts and the rows' places in them.

        Parameters
        ----------
        features : Tensor of shape (n_rows, n_inputs), default=None
        tokens : list of dict of Tensor, default=None
            Token tensors of the batch's distinct texts, in chunks of like length.
        index : Tensor of shape (n_rows, n_slots), default=None
            Place of each row's text (and context) among the distinct texts; -1 for no context.
        spread : callable, default=None
            Has the chunks embedded, each by one of several processes; None embeds them here.

        Returns
        -------
        Tensor of shape (n_rows, n_classes)
        """
        if features is None:
            assert self.encoder is not None and tokens is not None and index is not None
            device = self.mean.device
            fast = self.training and fast_bfloat16(device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
                embedded = torch.cat((spread or in_turn)(self._embedder(), tokens))
            features = side_by_side(embedded, index, self.encoder.n_context)
        return self.head(self.standardised(features))

    def _embedder(self) -> Embed:
        """What embeds a chunk; in training its dropout depends on the chunk's place alone.

        So it is the same in whatever order, and by whatever process, the chunks are embedded.
        """
        assert self.encoder is not None
        if not self.training:
            return partial(_embed, self.encoder, None)
        return partial(_embed, self.encoder, int(torch.randint(2**62, ())))

    def rescale(self, scale: float, shift: Tensor) -> None:
        """Scale all logits, then add a constant to each class's."""
        output = self.head.output
        with torch.no_grad():
            output.weight.mul_(scale)
            output.bias.mul_(scale).add_(shift)
