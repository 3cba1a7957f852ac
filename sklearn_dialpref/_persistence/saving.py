"""A fitted classifier as a folder, of safetensors, JSON and a model card, or within a pickle."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sklearn_dialpref._dialogues.cut_context import checked_summary
from sklearn_dialpref._labels.fitted import FittedLabels, plain, plain_values
from sklearn_dialpref._labels.targets import Targets
from sklearn_dialpref._training.inputs import POOLINGS

from .card import model_card
from .files import check_encoder, check_features, naming_encoder, read_tensors
from .folder import DamagedFile, new_folder, read_folder, read_json

KIND = "classifier"
STATE, WEIGHTS, ENCODER, CARD = "classifier.json", "student.safetensors", "encoder", "README.md"
OF_MACHINE = ("memory", "n_jobs", "checkpoint_dir", "accelerator")  # which are not saved
STATUSES = ("absent", "used", "corrected", "left out")  # of the teacher
LOAD_CALLER = 5  # frames from a warning while reading to who called `load`
PACKAGES = ("sklearn-dialpref", "scikit-learn", "torch", "sentence-transformers", "numpy")


class SavedAsFolder(BaseEstimator):
    """Mixin that gives a classifier ``save``, ``load`` and pickling."""

    accelerator: Any

    def save(
        self, path: str | os.PathLike[str], *, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Save the fitted estimator as a folder, without pickle.

        The folder holds the weights and the encoder as safetensors, the tokenizer, everything
        else as JSON, and a model card. It needs nothing outside it. It appears whole or not at
        all, and replaces a classifier that was saved at ``path`` before. With an ``accelerator``
        every process has to call it: the first one writes, the others wait until it is done.

        Parameters
        ----------
        path : str or Path
            Path of the folder.
        metrics : dict of float, default=None
            What you measured on dialogues that it was not trained on, by name, for the card.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        FileExistsError
            If something else is at ``path``.
        TypeError
            If classes or speakers are of a type that JSON does not have.

        Warns
        -----
        UserWarning
            If a parameter is a function or an object, which is not saved: a ``loss`` of your
            own, ``callbacks``, or a RandomState.

        See Also
        --------
        load : Read it again.

        Examples
        --------
        >>> import tempfile
        >>> from sklearn_dialpref import DialoguePreferenceClassifier
        >>> clf = DialoguePreferenceClassifier("precomputed", max_epochs=1, random_state=0)
        >>> X, y = [[0.0], [1.0], [0.0], [1.0]], ["no", "yes", "no", "yes"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     clf.fit(X, y).save(f"{folder}/clf", metrics={"accuracy": 1.0})
        ...     again = DialoguePreferenceClassifier.load(f"{folder}/clf")
        >>> bool((again.predict_proba(X) == clf.predict_proba(X)).all())
        True
        """
        from sklearn_dialpref._training.accelerated import on_main_process

        check_is_fitted(self, "net_")
        write = partial(self._write, path, _state(self), metrics or {})
        on_main_process(self.accelerator, write)

    def _write(
        self, path: str | os.PathLike[str], state: dict[str, Any], metrics: Mapping[str, float]
    ) -> None:
        with new_folder(path, KIND) as folder:
            (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
            _write_student(self, self._text_encoder, folder)
            card = model_card(self.fitted_labels_, state, metrics)
            (folder / CARD).write_text(card, encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | None = None) -> Self:
        """Load an estimator from a folder that :meth:`save` wrote.

        Nothing is unpickled and no code from the folder is run.

        Parameters
        ----------
        path : str or Path
            Path of the folder.
        device : str, default=None
            Torch device; None keeps the saved parameter. Where there is no such device, the
            classifier runs on the processor, with a UserWarning.

        Returns
        -------
        DialoguePreferenceClassifier
            It predicts as the saved one did. It can be fitted anew, from the encoder that its
            parameter names or, where that was an object, from the saved one.

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        ValueError
            If it was not saved by this package, or by a later version of it, or if a file in it
            is damaged or was changed.

        Warns
        -----
        UserWarning
            If the folder names a device that this machine lacks, or a schedule of an earlier
            version.
        """
        if device is not None:
            _check_device(device)
        return read_folder(path, KIND, partial(cls._read, device=device))

    @classmethod
    def _read(cls, folder: Path, device: str | None) -> Self:
        state = read_json(folder / STATE)
        try:
            estimator = cls(**_parameters_from(state["parameters"], folder))
            if device is not None:
                estimator.device = device
            estimator._check_parameters()
            device = _available_device(estimator.device, LOAD_CALLER)
            _restore(estimator, state, folder, device)
        except (DamagedFile, Warning):
            raise
        except Exception as error:  # whatever a nonsensical value leads to
            raise ValueError(
                f"{folder} cannot be read as a {KIND}: {STATE} is not as {cls.__name__}.save "
                f"writes it, or does not fit {WEIGHTS} ({type(error).__name__}: {error})"
            ) from error
        return estimator

    @property
    def _text_encoder(self) -> Any:
        """The encoder of a fitted estimator, trained or not; None for precomputed features."""
        return self._frozen.text_encoder if self._frozen else self.net_.module_.encoder

    def __getstate__(self) -> dict[str, Any]:
        """The student as its weights, so that it does not depend on a device or on skorch."""
        from safetensors.torch import save

        state = {**super().__getstate__(), "accelerator": None}  # it is of these processes
        if hasattr(self.encoder, "state_dict"):
            from sklearn_dialpref._student.encoders import to_cpu

            state = {**state, "encoder": to_cpu(self.encoder)}
        if "net_" in state:
            net = {"weights": save(_head_weights(self)), "encoder": self.net_.module_.encoder}
            state = {**state, "net_": net}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        from safetensors.torch import load

        super().__setstate__(state)
        if "net_" in state:
            device, net = _available_device(self.device), state["net_"]
            weights = load(net["weights"])
            n_classes = len(self.classes_)
            self.net_ = _ready_net(weights, n_classes, net["encoder"], device, "the pickle")
            if self._frozen:
                self._frozen.text_encoder.to(device)


def data_summary(targets: Targets, group: NDArray[np.int64]) -> dict[str, int]:
    """What a fit has seen, for the card."""
    labelled = targets.has_human | targets.has_score
    return {
        "utterances": len(group),
        "dialogues": len(np.unique(group)),
        "with a human label": int(targets.has_human.sum()),
        "with an LLM label": int(targets.has_score.sum()),
        "with both": int((targets.has_human & targets.has_score).sum()),
        "without any": int((~labelled).sum()),
    }


# -- to JSON and back -----------------------------------------------------------------------


def _as_json(value: Any, what: str) -> Any:
    """A parameter; a dict as pairs, since keys of JSON are strings."""
    if isinstance(value, Mapping):
        return {"pairs": [[plain(k, what), _as_json(v, what)] for k, v in value.items()]}
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    return plain_values(value, what) if np.ndim(value) else plain(value, what)


def _parameters(estimator: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Parameters as JSON, and in words those that are left out."""
    from sklearn_dialpref._training.stages import named_loss

    parameters, left_out = {}, {}
    for name, value in estimator.get_params(deep=False).items():
        if name in OF_MACHINE:
            continue
        if name == "loss":
            value = named_loss(value)
        if name == "encoder" and not isinstance(value, str | Path):
            value = None  # the saved one
        elif isinstance(value, Path):
            value = str(value)
        elif name in ("loss", "callbacks", "random_state") and not (
            value is None or isinstance(value, str | int | np.integer)
        ):
            if name != "callbacks" or len(value):
                left_out[name] = repr(value)
            continue
        parameters[name] = _as_json(value, name)
    return parameters, left_out


def _parameters_from(saved: dict[str, Any], folder: Path) -> dict[str, Any]:
    parameters = {
        name: dict(value["pairs"]) if isinstance(value, dict) else value
        for name, value in saved.items()
    }
    if parameters.get("schedule") == "two_rounds":
        del parameters["schedule"]
        warnings.warn(
            "schedule='two_rounds' of an earlier version is no longer there: the classifier "
            "predicts as it was saved, and has the default schedule if it is fitted again",
            UserWarning,
            stacklevel=LOAD_CALLER,
        )
    if parameters["encoder"] is None:
        from sklearn_dialpref._student.encoders import load_encoder

        with naming_encoder(folder / ENCODER):
            parameters["encoder"] = load_encoder(folder / ENCODER)
    return parameters


def _state(estimator: Any) -> dict[str, Any]:
    parameters, left_out = _parameters(estimator)
    if left_out:
        warnings.warn(
            f"not saved, as they are functions or objects: {sorted(left_out)}; set them again "
            "after loading if you mean to fit again",
            UserWarning,
            stacklevel=3,
        )
    names = getattr(estimator, "feature_names_in_", None)
    return {
        "parameters": parameters,
        "not_saved": left_out,
        **estimator.fitted_labels_.to_json(),
        "n_features": getattr(estimator, "n_features_in_", None),
        "feature_names": None if names is None else plain_values(names, "names of features"),
        "history": [
            {k: None if _is_nan(v) else v for k, v in record.items()}
            for record in estimator.history_
        ],
        "pooling": estimator.pooling_,
        "training": _training_as_json(estimator),
        "data": estimator.data_summary_,
        "versions": {package: version(package) for package in PACKAGES},
    }


def _training_as_json(estimator: Any) -> dict[str, Any]:
    """What the human labels decided; None where it is not known."""
    bias = getattr(estimator, "teacher_bias_", None)
    numbers = {
        name: getattr(estimator, f"{name}_", None)
        for name in ("teacher_bias_gain", "human_weight", "temperature")
    }
    return {
        "teacher_status": getattr(estimator, "teacher_status_", None),
        "teacher_bias": None if bias is None else [_finite(value) for value in bias],
        **{name: _finite(value) for name, value in numbers.items()},
    }


def _finite(value: Any) -> float | None:
    """A number as JSON has it; None for none, NaN or infinity."""
    return None if value is None or not math.isfinite(value) else float(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _restore(estimator: Any, state: dict[str, Any], folder: Path, device: str) -> None:
    """Give the estimator what ``fit`` would have."""
    # folders of earlier versions have the parameter only
    estimator.pooling_ = state.get("pooling", estimator.pooling)
    if estimator.pooling_ not in POOLINGS:
        raise ValueError(f"{folder} is damaged: there is no pooling {estimator.pooling_!r}")
    labels = FittedLabels.from_json(state, folder)
    estimator._frozen, estimator.net_ = _read_student(estimator, folder, labels, device)
    estimator.fitted_labels_ = labels
    width = None if labels.n_texts else len(estimator.net_.module_.mean)
    check_features(state["n_features"], state["feature_names"], width)
    if (estimator.encoder == "precomputed") == bool(labels.n_texts):
        raise ValueError(f"encoder={estimator.encoder!r} does not fit n_slots={labels.n_texts}")
    if width is not None:
        estimator.n_features_in_ = width
    if state["feature_names"] is not None:
        estimator.feature_names_in_ = np.array(state["feature_names"], dtype=object)
    estimator.history_ = [
        {k: float("nan") if v is None else v for k, v in record.items()}
        for record in state["history"]
    ]
    _restore_training(estimator, state.get("training") or {}, folder)
    estimator.data_summary_ = checked_summary(state["data"])


def _restore_training(estimator: Any, saved: dict[str, Any], folder: Path) -> None:
    """What :func:`_training_as_json` took; all None of a folder of an earlier version."""
    status, bias = saved.get("teacher_status"), saved.get("teacher_bias")
    misfit = bias is not None and len(bias) != len(estimator.classes_)
    if misfit or status not in (None, *STATUSES):
        raise ValueError(
            f"{folder} is damaged: what {STATE} says of the teacher does not fit its classes"
        )
    estimator.teacher_status_ = status
    estimator.teacher_bias_ = None if bias is None else np.array(bias, dtype=np.float64)
    for name in ("teacher_bias_gain", "human_weight", "temperature"):
        value = saved.get(name)
        setattr(estimator, f"{name}_", None if value is None else float(value))


# -- the student and its encoder as files -----------------------------------------------------


def _head_weights(estimator: Any) -> dict[str, Any]:
    return {
        name: tensor.cpu().contiguous()
        for name, tensor in estimator.net_.module_.state_dict().items()
        if not name.startswith("encoder.")
    }


def _write_student(estimator: Any, text_encoder: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    from sklearn_dialpref._student.encoder_files import write_encoder

    save_file(_head_weights(estimator), folder / WEIGHTS)
    if text_encoder is not None:
        write_encoder(text_encoder.model, folder / ENCODER)


def _read_student(
    estimator: Any, folder: Path, labels: FittedLabels, device: str
) -> tuple[Any, Any]:
    """The frozen encoder, if there is one, and the net."""
    from sklearn_dialpref._student.encoders import TextEncoder, load_encoder
    from sklearn_dialpref._student.frozen import FrozenEncoder

    saved, layers, pooling = str(folder / ENCODER), estimator.trainable_layers, estimator.pooling_
    weights = read_tensors(folder / WEIGHTS)
    n_inputs = len(weights["mean"])
    encoder: Any
    frozen = trained = None
    if labels.n_texts:
        if not (folder / ENCODER).is_dir():
            raise ValueError(f"{folder} has no encoder, but its texts need one")
        with naming_encoder(folder / ENCODER):
            if layers == 0:
                frozen = FrozenEncoder(saved, device, pooling)
            else:
                trained = TextEncoder(load_encoder(saved), layers, pooling)
            encoder = frozen.text_encoder if frozen else trained
            check_encoder(encoder)
            width = encoder.n_outputs + (labels.n_texts - 1) * encoder.n_context
            if n_inputs != width:
                raise ValueError(f"{WEIGHTS} has {n_inputs} inputs, but by {STATE} it is {width}")
    return frozen, _ready_net(weights, len(labels.classes), trained, device, folder / WEIGHTS)


def _ready_net(
    weights: dict[str, Any], n_classes: int, encoder: Any, device: str, source: Path | str
) -> Any:
    import torch

    from sklearn_dialpref._student.student import Student
    from sklearn_dialpref._training.net import ready_net

    width = len(weights["head.1.bias"])
    with torch.random.fork_rng(devices=[]):
        student = Student(len(weights["mean"]), n_classes, encoder, width=width)
    if weights["head.4.bias"].shape != (n_classes,):
        raise ValueError(f"{source} is damaged: its weights are not those of {n_classes} classes")
    missing, unexpected = student.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.startswith("encoder.")]
    if missing or unexpected:
        raise ValueError(f"{source} lacks {missing} and has the unknown weights {unexpected}")
    return ready_net(student, device)


def _check_device(device: str) -> None:
    """Let torch raise its error for a device that there cannot be."""
    import torch

    from sklearn_dialpref._training.device import torch_device

    torch.device(torch_device(device))


def _available_device(device: str, stacklevel: int = 3) -> str:
    """The device, or the processor where there is no such device."""
    import torch

    from sklearn_dialpref._training.device import torch_device

    device = torch_device(device)
    wanted = torch.device(device)
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(wanted.type)
    beyond = wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count()
    if backend is None or (backend.is_available() and not beyond):
        return device
    warnings.warn(
        f"device={device!r} is not there: the classifier runs on the processor; "
        "set_params(device=…) before fitting it again",
        UserWarning,
        stacklevel=stacklevel,
    )
    return "cpu"
