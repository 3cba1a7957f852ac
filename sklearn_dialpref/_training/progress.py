"""One progress bar for a whole fit, and the parts that a fit has for it and for checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn
from tqdm.auto import tqdm

from sklearn_dialpref._progress import bar_options, calling_bar

from .checkpoints import Checkpoints, random_tensors, set_random_state
from .recipe import BATCH, JOINT_HUMAN_SHARE, MANY_LABELS, N_FOLDS, SHARES, auto_epochs
from .stages import HUMAN_STAGE, Stage

if TYPE_CHECKING:
    from sklearn_dialpref._labels.targets import Targets

# what it costs to train on an utterance once, against encoding it
TRAINED_COST = {"frozen": 0.005, "fine_tuned": 3.0}
SAMPLE = 1024  # texts that are encoded before an encoder is trained
BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
SMOOTHING = 0.05  # of the speed: parts of a fit differ in how well their cost is known


class FitBar:
    """A tqdm bar over the parts of a fit, each as long as its estimated cost.

    Within a call that shows a bar over several fits there is none of this one.

    Parameters
    ----------
    verbose : bool
        Whether it is shown.
    """

    def __init__(self, verbose: bool) -> None:
        self._call = calling_bar()
        if self._call is not None and verbose:
            self._call.show()
        shown = bar_options(verbose=verbose and self._call is None)
        self._bar = tqdm(total=1, desc="fit: ", bar_format=BAR, smoothing=SMOOTHING, **shown)
        self._text = ""
        self._costs: dict[str, float] = {}

    def __enter__(self) -> FitBar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        if self._call is not None:
            self._call.count()

    def plan(self, costs: Mapping[str, float]) -> None:
        """Set the costs of all parts that are to come."""
        self._costs = dict(costs)
        self._set_total()

    def refine(self, costs: Mapping[str, float]) -> None:
        """Set the costs of some parts that are to come to better estimates."""
        known = self._costs.keys()
        self._costs.update({name: cost for name, cost in costs.items() if name in known})
        self._set_total()

    def _set_total(self) -> None:
        if not self._bar.disable:
            self._bar.total = self._bar.n + sum(self._costs.values())
            self._bar.refresh()

    @contextmanager
    def part(self, name: str) -> Iterator[Callable[[float], None]]:
        """Begin a part; what is yielded moves the bar on by a share of it."""
        cost, left = self._costs.pop(name, 0.0), 1.0

        def advance(share: float) -> None:
            nonlocal left
            share = min(share, left)
            left -= share
            self._move(share * cost)

        yield advance
        self._skip(left * cost)

    def skip(self, name: str) -> None:
        """Pass over a part and the parts of it, which take no time."""
        for other in [n for n in self._costs if n == name or n.startswith(f"{name}-")]:
            self._skip(self._costs.pop(other))

    def describe(self, text: str) -> None:
        """Say what is being done."""
        if text != self._text:
            self._text = text
            self._bar.set_description(text)

    def show_loss(self, loss: float) -> None:
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def _move(self, cost: float) -> None:
        # sums of fractions may exceed the total by rounding
        self._bar.update(min(cost, self._bar.total - self._bar.n))

    def _skip(self, cost: float) -> None:
        """Move on without a say in the speed, by which the time left is told."""
        if self._bar.disable:
            return
        before = self._bar.n
        self._bar.n = min(before + cost, self._bar.total)
        self._bar.initial += self._bar.n - before
        self._bar.last_print_n += self._bar.n - before
        self._bar.refresh()


@dataclass(frozen=True)
class Part:
    """A part of a fit, by its name in the progress bar and in the checkpoints.

    Attributes
    ----------
    bar : FitBar
    checkpoints : Checkpoints or None
        None where none are wanted.
    name : str
        Names of parts begin with the name of what they are a part of.
    """

    bar: FitBar
    checkpoints: Checkpoints | None = None
    name: str = ""

    def within(self, name: str) -> Part:
        """A part of this one."""
        return replace(self, name=f"{self.name}-{name}" if self.name else name)

    def kept(self, compute: Callable[[], Tensor]) -> Tensor:
        """What it computes or, in a fit that goes on, had computed; torch's random state too."""
        if self.checkpoints is None:
            return compute()
        device = self.checkpoints.device
        stored = self.checkpoints.read(self.name)
        if stored is not None:
            set_random_state(stored.tensors, device)
            value = stored.tensors["value"]
            self.bar.skip(self.name)
        else:
            value = compute()
            self.checkpoints.write(self.name, {"value": value, **random_tensors(device)}, {})
        self.checkpoints.remove_parts(self.name)
        return value

    def check_space(self, student: nn.Module) -> None:
        """Raise an OSError where the disk has no room for the student's checkpoints."""
        if self.checkpoints is not None:
            self.checkpoints.check_space(student)


class ShowsProgress(Callback):
    """Moves the bar on with each step of a stage."""

    def __init__(self, bar: FitBar, advance: Callable[[float], None], steps: int) -> None:
        self.bar = bar
        self.advance = advance
        self.steps = steps

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.bar.describe(f"{net.criterion_.stage} {len(net.history)}/{net.max_epochs}")

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        if training:
            self.bar.show_loss(net.history[-1, "batches", -1, "train_loss"])
            self.advance(1 / self.steps)


# -- what a fit costs -----------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """What the cost of a fit depends on; rows in utterances of up to 32 tokens.

    Attributes
    ----------
    encoded, human, llm : float
        Rows that are encoded before training, that have human labels, and that the LLM scored.
    n_human : int
    batch_size : int
    max_epochs : int or None
    kind : {"frozen", "fine_tuned"}
    judged : bool
        Whether folds are wanted even where no stage on human labels follows the teacher's.
    """

    encoded: float
    human: float
    llm: float
    n_human: int
    batch_size: int
    max_epochs: int | None
    kind: str
    judged: bool

    @classmethod
    def of(
        cls,
        estimator: Any,
        targets: Targets,
        human: float,
        llm: float,
        *,
        precomputed: bool,
        judged: bool,
    ) -> Workload:
        """From the parameters of the estimator, and the labels."""
        kind = "frozen" if precomputed or estimator.trainable_layers == 0 else "fine_tuned"
        encoded = 0 if precomputed else int((targets.has_human | targets.has_score).sum())
        size, epochs = estimator.batch_size, estimator.max_epochs
        return cls(
            encoded=encoded if kind == "frozen" else min(encoded, SAMPLE),
            human=human,
            llm=llm,
            n_human=int(targets.has_human.sum()),
            batch_size=BATCH[kind] if size == "auto" else size,
            max_epochs=None if epochs == "auto" else epochs,
            kind=kind,
            judged=judged or targets.multilabel,
        )

    def costs(self, stages: Sequence[Stage]) -> dict[str, float]:
        """The estimated cost of each part by its name, in utterances that are encoded."""
        costs = {"encode": float(self.encoded)}
        costs |= {stage.name: self._training(stage, n) for n, stage in enumerate(stages)}
        first = next((n for n, stage in enumerate(stages) if stage.human), len(stages))
        last = list(stages[first:])
        follows = first > 0 and last == [HUMAN_STAGE]
        if not last or not (self.judged or follows):
            return costs
        n_predictions = len(SHARES) if follows else 1
        predicted = self.human * n_predictions / N_FOLDS if self.kind == "fine_tuned" else 0.0
        for fold in range(1 if self.n_human > MANY_LABELS else N_FOLDS):
            for stage in last:
                costs[f"fold{fold}-{stage.name}"] = costs[stage.name] * (1 - 1 / N_FOLDS)
            costs[f"fold{fold}"] = predicted
        return costs

    def _training(self, stage: Stage, number: int) -> float:
        """Of a stage with this number."""
        rows = self.human if stage.llm is None else self.llm
        n_batches, n_human_batches = math.ceil(max(rows, 1) / self.batch_size), 0
        if stage.llm is not None and stage.human:
            share = min(1.0, self.human / max(self.llm, 1))
            beside = max(1, self.batch_size // JOINT_HUMAN_SHARE, round(self.batch_size * share))
            n_human_batches = math.ceil(self.human / beside)
            rows += beside * n_batches
        epochs = self.max_epochs or auto_epochs(
            n_batches,
            teacher=stage.llm is not None,
            first=number == 0,
            frozen=self.kind == "frozen",
            n_human_batches=n_human_batches,
        )
        return epochs * rows * TRAINED_COST[self.kind]
