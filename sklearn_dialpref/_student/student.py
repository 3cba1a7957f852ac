"""The student: an encoder or precomputed features, and a small head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sklearn_dialpref._compat import fast_bfloat16

from .encoders import FrozenEncoder, TextEncoder


def embedded_rows(
    encoder: TextEncoder | FrozenEncoder, texts: Sequence[str], index: NDArray[np.int64]
) -> Tensor:
    """The embeddings of each row's texts side by side, see :func:`side_by_side`."""
    embedded = torch.from_numpy(encoder.embed(texts))
    return side_by_side(embedded, torch.from_numpy(index), encoder.n_context)


def side_by_side(embedded: Tensor, index: Tensor, n_context: int) -> Tensor:
    """What each row shows to the head: its utterance's embedding, then those of its contexts.

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

    def standardise_by(self, features: Tensor) -> None:
        """Set mean and scale of the inputs; that of columns constant but for rounding is ≥ 1.

        Raises a ValueError where they are beyond float32.
        """
        self.mean = features.mean(dim=0)
        # without a correction, since one row has a spread of 0 and not of NaN
        scale = features.std(dim=0, correction=0)
        size = self.mean.abs()
        rounding = 1e-8 + 2.5e-7 * size  # two steps of a float32
        self.scale = torch.where(scale > rounding, scale, size.clamp(min=1))
        beyond = ~(self.mean.isfinite() & scale.isfinite())
        if beyond.any():
            column = int(beyond.int().argmax())
            largest = float(features[:, column].abs().max())
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
