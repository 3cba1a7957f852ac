"""The state of a stage's training: written while it lasts and when it ends, and restored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn

from .checkpoints import Checkpoints, random_tensors, set_random_state, trained_tensors

if TYPE_CHECKING:
    from .batches import DialogueBatches

SECONDS = 300.0  # without a checkpoint, at most, inside an epoch
MOST_SHARE = 0.05  # of the time that checkpoints at the ends of epochs may take


def restore_stage(checkpoints: Checkpoints, name: str, net: NeuralNet, student: nn.Module) -> bool:
    """Give student and net what a finished stage left, if it is finished."""
    stored = checkpoints.read(name)
    if stored is None:
        return False
    net.initialize()
    _load_trained(student, stored.tensors)
    net.history.extend({**epoch, "batches": []} for epoch in stored.state["history"])
    set_random_state(stored.tensors, checkpoints.device)
    checkpoints.remove(_unfinished(name))
    return True


def finish_stage(checkpoints: Checkpoints, name: str, net: NeuralNet, student: nn.Module) -> None:
    """Write what a finished stage leaves, in place of its checkpoint."""
    tensors = {**_student_tensors(student), **random_tensors(checkpoints.device)}
    checkpoints.write(name, tensors, {"history": _without_batches(net.history)})
    checkpoints.remove(_unfinished(name))


class StageCheckpoints(Callback):
    """Writes the state of a stage's training, and goes on from it.

    It must be the last callback: others prepare in ``on_train_begin`` what it replaces.

    Parameters
    ----------
    checkpoints : Checkpoints
    name : str
        Of the stage.
    student : Student
    batches : DialogueBatches
        What the stage trains on.
    """

    def __init__(
        self, checkpoints: Checkpoints, name: str, student: nn.Module, batches: DialogueBatches
    ) -> None:
        self.checkpoints = checkpoints
        self.name = name
        self.student = student
        self.batches = batches

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self._done: list[dict[str, Any]] = []  # batches of an epoch that was left
        self._random: dict[str, Tensor] | None = None
        self._cost, self._saved = 0.0, time.monotonic()
        stored = self.checkpoints.read(_unfinished(self.name))
        if stored is None:
            return
        tensors, state = stored
        _load_trained(self.student, tensors)
        _load_optimizer(net.optimizer_, tensors)
        _load_callbacks(net, tensors, state)
        net.history.extend({**epoch, "batches": []} for epoch in state["history"])
        if self.batches.rng is not None:
            self.batches.rng.set_state(_random_state(state["rng"]))
        self._done = state["batches"]
        if self._done:
            self._random = tensors
        else:
            set_random_state(tensors, self.checkpoints.device)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self._rng = _random_json(self.batches.rng)
        net.history[-1]["batches"].extend(self._done)
        self.batches.skip, self._done = len(self._done), []

    def on_batch_begin(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        if not training:
            return
        if self._random is not None:
            # only now: beginning an epoch, even one that is left behind, has drawn a number
            set_random_state(self._random, self.checkpoints.device)
            self._random = None
            return
        # before a batch, so that no checkpoint lies between the last one and validation
        *done, _ = net.history[-1]["batches"]
        if done and time.monotonic() - self._saved > SECONDS:
            self._save(net, net.history[:-1], done)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        # epochs of a head on its own are over faster than a file is written, and after the last
        # one the stage's end is
        is_last = len(net.history) == net.max_epochs
        if not is_last and MOST_SHARE * (time.monotonic() - self._saved) >= self._cost:
            self._rng = _random_json(self.batches.rng)
            self._save(net, net.history, [])

    def _save(self, net: NeuralNet, epochs: list[Any], done: list[dict[str, Any]]) -> None:
        begun = time.monotonic()
        tensors, callbacks = _callbacks_state(net, self.student, whole_epoch=not done)
        state = {
            **callbacks,
            "history": _without_batches(epochs),
            "batches": done,
            "rng": self._rng,
        }
        tensors |= {
            **_student_tensors(self.student),
            **_optimizer_tensors(net.optimizer_),
            **random_tensors(self.checkpoints.device),
        }
        self.checkpoints.write(_unfinished(self.name), tensors, state)
        self._saved = time.monotonic()
        self._cost = self._saved - begun


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{number}.{name}": value
        for number, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".")
            entries.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def _callbacks_state(
    net: NeuralNet, student: nn.Module, *, whole_epoch: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Of the learning rate's schedule, and of early stopping with its best weights."""
    callbacks = dict(net.callbacks_)
    state = {"schedule": callbacks["schedule"].lr_scheduler_.state_dict(), "stop": None}
    stop, best = callbacks.get("stop"), {}
    if stop is not None:
        weights = stop.best_model_weights_
        is_present = whole_epoch and stop.best_epoch_ == len(net.history)
        if weights is not None and not is_present:
            names = trained_tensors(student).keys() & weights.keys()
            best = {f"best.{name}": weights[name] for name in names}
        state["stop"] = {
            "misses_": stop.misses_,
            "dynamic_threshold_": float(stop.dynamic_threshold_),
            "best_epoch_": stop.best_epoch_,
        }
    return best, state


def _load_callbacks(
    net: NeuralNet, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    callbacks = dict(net.callbacks_)
    scheduler = callbacks["schedule"].lr_scheduler_
    scheduler.load_state_dict(state["schedule"])
    for group, rate in zip(net.optimizer_.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    stop = callbacks.get("stop")
    if stop is not None:
        for name, value in state["stop"].items():
            setattr(stop, name, value)
        if stop.best_epoch_:
            present = net.module_.state_dict()
            stop.best_model_weights_ = {
                name: tensors.get(f"best.{name}", weight).to(weight.device, copy=True)
                for name, weight in present.items()
            }


def _random_json(rng: np.random.RandomState | None) -> Any:
    if rng is None:
        return None
    state: dict[str, Any] = rng.get_state(legacy=False)
    return {**state, "state": {**state["state"], "key": state["state"]["key"].tolist()}}


def _random_state(state: dict[str, Any]) -> dict[str, Any]:
    key = np.array(state["state"]["key"], dtype=np.uint32)
    return {**state, "state": {**state["state"], "key": key}}


def _unfinished(name: str) -> str:
    return f"{name}.unfinished"


def _load_trained(student: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in trained_tensors(student).items():
            tensor.copy_(tensors[f"student.{name}"])


def _student_tensors(student: nn.Module) -> dict[str, Tensor]:
    return {f"student.{name}": tensor for name, tensor in trained_tensors(student).items()}


def _without_batches(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a net's history, without those of their batches."""
    return [{name: v for name, v in epoch.items() if name != "batches"} for epoch in epochs]
