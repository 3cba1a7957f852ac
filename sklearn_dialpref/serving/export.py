"""A fitted classifier as one ONNX graph, checked against the classifier before it is written."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sklearn_dialpref._dialogues.cut_context import known_turns
from sklearn_dialpref._dialogues.texts import distinct_texts
from sklearn_dialpref._labels.fitted import FittedLabels
from sklearn_dialpref._persistence.folder import new_folder
from sklearn_dialpref._student.encoders import TextEncoder
from sklearn_dialpref._student.student import Student, side_by_side
from sklearn_dialpref._training.accelerated import on_main_process

from .agreement import OnnxReport, compared, refuse_if_different, text_columns
from .int8 import Inputs, quantise
from .onnx import KIND, MODEL, SERVED, TOKENIZER, OnnxDialogueClassifier

__all__ = ["OnnxReport", "export_onnx"]

PRECISIONS = ("float32", "int8")
MOST_SAMPLES = 128  # texts that the ranges of activations are measured on
PACKAGES = ("sklearn-dialpref", "torch", "onnx", "onnxruntime")
LONGEST = 10**6  # tokens; tokenizers without a limit have an absurd one
# that tokenize differently in different hands: case, blanks, length, other scripts
PROBES = ["Where is  MY parcel?", " Ünïcode – 你好 😀\t", "a", "[PAD] </s> [SEP]", "two\nlines"]
PROBES.append(" ".join(map(str, range(3000))))


def export_onnx(
    clf: Any,
    path: str | os.PathLike[str],
    *,
    X_check: Any = None,
    y_check: Any = None,
    precision: str = "float32",
    max_loss: float = 0.005,
) -> OnnxReport:
    """Write a fitted classifier as a folder with one ONNX graph and a tokenizer.

    Encoder, pooling and head are one graph, of any number and length of texts. The exported
    model is run on ``X_check`` beside the classifier, and nothing is written if it differs by
    more than it may. With an ``accelerator``, every process calls it and the first one writes.

    Parameters
    ----------
    clf : DialoguePreferenceClassifier
        Fitted on text.
    path : str or Path
        Path of the folder, which appears whole or not at all; one that was exported before is
        replaced.
    X_check : DataFrame, ndarray or sequence of str
        Utterances as ``predict`` takes them, best ones that were not trained on; a hundred, in
        whole dialogues where context is used, are enough. There is no default: without them
        nothing would tell whether the graph answers as the classifier does.
    y_check : array-like of shape (n,) or (n, n_labels), default=None
        Their labels, missing where None, NaN or pd.NA.
    precision : {"float32", "int8"}, default="float32"
        ``"int8"``: the encoder's weights are 8-bit integers with a scale for each channel, and so
        are its activations, with a scale for each layer that is measured on texts of
        ``X_check``; a quarter of the size. The head stays float32.
    max_loss : float, default=0.005
        By how much the score may fall with ``"int8"``, see :class:`OnnxReport`. With
        ``"float32"`` probabilities must be within 1e-4, so that labels are the same but for ties.

    Returns
    -------
    OnnxReport
        Agreement and latencies; ``print`` it.

    Raises
    ------
    NotFittedError
        If ``clf`` is not fitted.
    ImportError
        If onnx, onnxscript or onnxruntime is not installed.
    ValueError
        If ``X_check`` is missing, the exported model differs too much, ``clf`` was fitted on
        precomputed features, or its tokenizer does what the ``tokenizers`` package cannot.
    FileExistsError
        If something else is at ``path``.

    See Also
    --------
    OnnxDialogueClassifier : Loads the folder.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn_dialpref import DialoguePreferenceClassifier
    >>> from sklearn_dialpref.serving import OnnxDialogueClassifier, export_onnx
    >>> X, y = ["Where is my parcel?", "It is broken.", "Thanks!", "Great."], [0, 0, 1, 1]
    >>> clf = DialoguePreferenceClassifier(encoder_layers=1, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = export_onnx(clf, f"{folder}/model", X_check=X, y_check=y)
    ...     served = OnnxDialogueClassifier.load(f"{folder}/model")
    >>> report.same, report.score
    (1.0, 1.0)
    >>> served.predict(["Thank you so much!"]).tolist()
    [1]
    """
    check_is_fitted(clf, "net_")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    if clf.fitted_labels_.n_texts == 0:
        raise ValueError(
            "export_onnx needs a classifier of text, but this one was fitted on precomputed "
            "features (encoder='precomputed'): its encoder is elsewhere"
        )
    if X_check is None:
        raise ValueError(
            "export_onnx needs X_check, utterances on which the graph is compared with the "
            "classifier before it is written, and on which the scales of an int8 graph are "
            "measured; a hundred rows suffice, such as X_check=X[:100] of the data that fit was "
            "given, best whole dialogues that it was not given"
        )
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _require(package)
    module = clf.net_.module_
    encoder = clf._text_encoder
    tokenizer, special, pad = _tokenizer_of(encoder)
    state = {
        **clf.fitted_labels_.to_json(),
        "context_turns": clf.context_turns,
        "turns": known_turns(clf.data_summary_),
        "prompt": encoder.prompt or "",
        "special_tokens": special,
        "pad": pad,
        "precision": precision,
        "fixed_scales": precision == "int8",
        "versions": {package: version(package) for package in PACKAGES},
    }

    def write() -> OnnxReport:
        with new_folder(path, KIND) as folder:
            (folder / SERVED).write_text(json.dumps(state, indent=1), encoding="utf-8")
            tokenizer.save(str(folder / TOKENIZER))
            graph = ServingGraph(encoder, module).eval()
            with _quiet():
                _write_graph(graph, clf.fitted_labels_.n_texts, folder / MODEL)
                if precision == "int8":
                    samples = _samples(clf, X_check, tokenizer, state)
                    quantise(folder / MODEL, folder / MODEL, samples)
            exported = OnnxDialogueClassifier._from_files(folder, threads=None)
            n_bytes = (folder / MODEL).stat().st_size
            report = compared(clf, exported, X_check, y_check, precision, n_bytes)
            refuse_if_different(report, max_loss)
            card = _card(clf.fitted_labels_, state, report)
            (folder / "README.md").write_text(card, encoding="utf-8")
        return report

    return on_main_process(clf.accelerator, write)


def _require(package: str) -> None:
    try:
        __import__(package)
    except ImportError as error:
        raise ImportError(
            f"export_onnx needs {package}: pip install 'sklearn-dialpref[onnx]'"
        ) from error


# -- the graph ------------------------------------------------------------------------------


class ServingGraph(nn.Module):
    """From the tokens of distinct texts, and the rows' places among them, to logits.

    A copy: neither the classifier nor its encoder changes.
    """

    def __init__(self, encoder: TextEncoder, student: Student) -> None:
        super().__init__()
        encoder = copy.deepcopy(encoder).cpu().float().requires_grad_(False)
        for module in encoder.modules():
            choose = getattr(module, "set_attn_implementation", None)
            if callable(choose):
                choose("eager")  # the others become more operators
        self.encoder = StaticTexts(encoder) if is_static(encoder) else encoder
        self.n_context = encoder.n_context
        self.student = copy.deepcopy(student.without_encoder()).cpu()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, index: Tensor) -> Tensor:
        embedded = self.encoder({"input_ids": input_ids, "attention_mask": attention_mask})
        return self.student(side_by_side(embedded, index, self.n_context))


class StaticTexts(nn.Module):
    """A static embedding of padded tokens, in place of the flat ones of an EmbeddingBag."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.n_context = encoder.n_context
        first, *self.rest = encoder.model
        self.rest = nn.ModuleList(self.rest)
        self.table = nn.Embedding.from_pretrained(first.embedding.weight.detach())

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        mask = tokens["attention_mask"].unsqueeze(-1).float()
        total = (self.table(tokens["input_ids"]) * mask).sum(dim=1)
        features = {"sentence_embedding": total / mask.sum(dim=1).clamp(min=1)}
        for module in self.rest:
            features = module(features)
        return features["sentence_embedding"][:, : self.n_context]


def is_static(encoder: TextEncoder) -> bool:
    return hasattr(encoder.model[0], "embedding") and not hasattr(encoder.model[0], "auto_model")


def _write_graph(graph: ServingGraph, n_slots: int, file: Path) -> None:
    tokens = torch.tensor([[1, 2, 1], [2, 1, 1]]), torch.ones(2, 3, dtype=torch.int64)
    index = torch.tensor([[0, 1], [1, 0], [1, -1]])[:, :n_slots]
    texts, width, rows = (torch.export.Dim(name) for name in ("texts", "tokens", "rows"))
    with torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (*tokens, index),
            dynamo=True,
            dynamic_shapes={
                "input_ids": {0: texts, 1: width},
                "attention_mask": {0: texts, 1: width},
                "index": {0: rows},
            },
            input_names=["input_ids", "attention_mask", "index"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        program.save(str(file))


def _samples(clf: Any, X: Any, tokenizer: Any, state: dict[str, Any]) -> Iterator[Inputs]:
    """Single texts as inputs of the graph: some of ``X``, and odd ones."""
    texts, _ = distinct_texts(text_columns(clf, X))
    some = texts[:: math.ceil(len(texts) / MOST_SAMPLES)]
    index = np.array([[0, -1]])[:, : clf.fitted_labels_.n_texts]
    for text in [*some, *PROBES]:
        special = state["special_tokens"]
        encoding = tokenizer.encode(state["prompt"] + text, add_special_tokens=special)
        ids = np.array([encoding.ids or [state["pad"]]], dtype=np.int64)
        yield {"input_ids": ids, "attention_mask": np.ones_like(ids), "index": index}


def silent(record: logging.LogRecord) -> bool:
    """A filter that lets nothing of a logger's own through."""
    return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes and warnings."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    # without any handler a note of the quantiser would set up logging for the whole process
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(silent)
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(silent)
        root.removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


# -- the tokenizer --------------------------------------------------------------------------


def _tokenizer_of(encoder: TextEncoder) -> tuple[Any, bool, int]:
    """A tokenizer of the ``tokenizers`` package, if it adds special tokens, and what pads."""
    from tokenizers import Tokenizer

    of_model = encoder.model.tokenizer
    backend = getattr(of_model, "backend_tokenizer", of_model)
    if not isinstance(backend, Tokenizer):
        raise ValueError(
            f"the encoder's tokenizer {type(of_model).__name__} is not one of the tokenizers "
            "package, which serves without transformers; choose an encoder with a fast tokenizer"
        )
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_padding()
    special = not is_static(encoder)
    pad = 0
    if special:
        tokenizer.no_truncation()
        pad = int(of_model.pad_token_id or 0)
        longest = encoder.model.max_seq_length
        if longest is not None and longest < LONGEST:
            side = getattr(of_model, "truncation_side", "right")
            tokenizer.enable_truncation(int(longest), direction=side)
    prompt = encoder.prompt or ""
    found = tokenizer.encode_batch([prompt + text for text in PROBES], add_special_tokens=special)
    for text, encoding in zip(PROBES, found, strict=True):
        expected = encoder.tokens([text])
        if encoding.ids != expected["input_ids"].reshape(-1).tolist():
            raise ValueError(
                f"the encoder reads {text[:30]!r} otherwise than the tokenizers package does, "
                "which serves without transformers; choose another encoder"
            )
    return tokenizer, special, pad


# -- the card -----------------------------------------------------------------------------


def _card(labels: FittedLabels, state: dict[str, Any], report: OnnxReport) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in state["versions"].items())
    return "\n\n".join(
        [
            "# Classifier of utterances in dialogues, for ONNX Runtime",
            "Made by `sklearn_dialpref.export_onnx`. Load it with "
            "`OnnxDialogueClassifier.load(folder)`, which needs no torch.",
            labels.card(),
            "## Checked\n\n" + "\n".join(f"- {line}" for line in str(report).splitlines()),
            f"## Versions\n\n{versions}\n",
        ]
    )
