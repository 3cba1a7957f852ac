"""A classifier that runs as an ONNX graph; without scikit-learn, torch and transformers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sklearn_dialpref._dialogues.cut_context import checked_summary, warn_of_cut_context
from sklearn_dialpref._dialogues.texts import check_unicode, distinct_texts, fitted_slots, row_of
from sklearn_dialpref._dialogues.validation import check_dialogues
from sklearn_dialpref._labels.accuracy import accuracy
from sklearn_dialpref._labels.fitted import FittedLabels, HasFittedLabels, predicted_batches
from sklearn_dialpref._persistence.folder import naming, read_folder, read_json

__all__ = ["KIND", "MODEL", "SERVED", "TOKENIZER", "OnnxDialogueClassifier"]

KIND = "onnx"
EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
SERVED, MODEL, TOKENIZER = "serving.json", "model.onnx", "tokenizer.json"
BATCH_TOKENS = 256  # of a batch, with padding; larger ones leave the processor's cache
MOST_TURNS = 10_000  # of context
# On a processor it takes three times as long as the sum and the normalisation that it fuses (int8
# MiniLM, 16 tokens, ONNX Runtime 1.32, its profile: 37 us each, against 4 and 8).
SLOW_FUSIONS = ["SkipLayerNormFusion"]


class Parts(NamedTuple):
    """What a text goes through: the prompt before it, the tokenizer, padding, the graph.

    ``turns`` is what ``data_summary_`` of the classifier says of the turns of training.

    int8 graphs that older versions wrote scale activations by the range of the whole batch. They
    are run ``row_by_row``, as an answer would change with its neighbours.
    """

    prompt: str
    special_tokens: bool
    pad: int
    tokenizer: Any
    session: Any
    row_by_row: bool
    turns: dict[str, int]


class OnnxDialogueClassifier(HasFittedLabels):
    """Predicts as a fitted :class:`DialoguePreferenceClassifier`, by ONNX Runtime.

    Made by :meth:`load` from a folder that :func:`export_onnx` wrote. It imports neither torch
    nor transformers nor sentence-transformers nor scikit-learn, and can be used by any number of
    threads at once.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, or names of the labels of a multilabel problem.
    multilabel_ : bool
        Whether each utterance can have several labels.
    thresholds_ : ndarray of shape (n_labels,)
        Multilabel only: probability from which on a label is predicted.
    context_turns : int
        How many utterances before each one are its context.

    See Also
    --------
    export_onnx : Writes the folder.

    Examples
    --------
    The folder is written where there is torch, and served where there need be none:

    >>> import tempfile
    >>> from sklearn_dialpref import DialoguePreferenceClassifier
    >>> from sklearn_dialpref.serving import OnnxDialogueClassifier, export_onnx
    >>> X, y = ["Where is my parcel?", "It is broken.", "Thanks!", "Great."], [0, 0, 1, 1]
    >>> clf = DialoguePreferenceClassifier(encoder_layers=1, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = export_onnx(clf, f"{folder}/model", X_check=X)
    ...     served = OnnxDialogueClassifier.load(f"{folder}/model", threads=1)
    >>> served.predict(["Thank you so much!"])
    array([1])
    >>> served.score(X, y)
    1.0
    """

    context_turns: int
    _parts: Parts

    def __init__(self) -> None:
        raise TypeError("use OnnxDialogueClassifier.load(folder)")

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, threads: int | None = None) -> Self:
        """Load the model from a folder that :func:`export_onnx` wrote.

        Nothing is unpickled and no code from the folder is run.

        Parameters
        ----------
        path : str or Path
            Path of the folder.
        threads : int, default=None
            Threads of ONNX Runtime for one call; None takes all cores.

        Returns
        -------
        OnnxDialogueClassifier

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        ValueError
            If it was not exported by this package or by a later version, is damaged or changed.
        """
        return read_folder(path, KIND, partial(cls._from_files, threads=threads))

    @classmethod
    def _from_files(cls, folder: Path, threads: int | None) -> Self:
        model = cls.__new__(cls)
        try:
            state = read_json(folder / SERVED)
            model.fitted_labels_ = FittedLabels.from_json(state, folder)
            model.context_turns = int(state["context_turns"])
            prompt, special = str(state["prompt"]), bool(state["special_tokens"])
            pad = int(state["pad"])
            row_by_row = state["precision"] == "int8" and not state.get("fixed_scales", False)
            turns = checked_summary(state.get("turns", {}))  # earlier versions do not tell
        except (
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            ArithmeticError,
            OSError,
        ) as error:
            raise ValueError(
                f"{folder} cannot be read as a model: {SERVED} is not as export_onnx writes it "
                f"({type(error).__name__}: {error})"
            ) from error
        tokenizer = _tokenizer(folder / TOKENIZER)
        session = open_session(folder / MODEL, threads)
        model._parts = Parts(prompt, special, pad, tokenizer, session, row_by_row, turns)
        model._check(folder)
        return model

    def _check(self, folder: Path) -> None:
        """Whether the parts fit together: a text has to go through, and two of other lengths."""
        n_texts = self.fitted_labels_.n_texts
        in_range = (
            n_texts in (1, 2)
            and 0 <= self.context_turns <= MOST_TURNS * (n_texts - 1)
            and 0 <= self._parts.pad < self._parts.tokenizer.get_vocab_size()
        )
        if not in_range:
            raise ValueError(f"{folder} is damaged: {SERVED} has numbers that cannot be")
        places = np.array([[0, 1], [1, -1]])[:, :n_texts]
        for texts, index in (row_of(alone("a", n_texts)), (["a", "two words"], places)):
            try:
                logits = self._logits_from_texts(texts, index)
            except Exception as error:  # onnxruntime's have no common base
                raise ValueError(
                    f"{folder} is damaged: {SERVED}, {TOKENIZER} and {MODEL} do not fit together "
                    f"({error})"
                ) from error
            if logits.shape != (len(index), len(self.classes_)):
                raise ValueError(
                    f"{folder} is damaged: {MODEL} is not of the {len(self.classes_)} classes "
                    f"that {SERVED} has"
                )
            if not np.isfinite(logits).all():
                raise ValueError(f"{folder} is damaged: {MODEL} has numbers that are not finite")

    def __reduce__(self) -> Any:
        raise TypeError(
            "an OnnxDialogueClassifier cannot be pickled or copied: load its folder in each "
            "process that uses it"
        )

    # -- predicting ---------------------------------------------------------------------------

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probability of each class, as :meth:`DialoguePreferenceClassifier.predict_proba`.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            Utterances, in any form that the classifier took; with context, the previous
            utterances of their dialogues too.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Columns in the order of ``classes_``.

        Raises
        ------
        ValueError
            If ``X`` is not as described.

        Warns
        -----
        UserWarning
            If ``X`` lacks utterances that ``context_turns`` would show.
        """
        return self.fitted_labels_.probabilities(self._logits(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each utterance, or its labels.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            As for :meth:`predict_proba`.

        Returns
        -------
        ndarray of shape (n,), or of int of shape (n, n_labels)
        """
        return self.fitted_labels_.labels(self._logits(X))

    def predict_batches(self, batches: Iterable[Any], *, output: str = "label") -> Iterator[Any]:
        """Predict tables one after the other, in memory for one of them.

        Parameters
        ----------
        batches : iterable of DataFrame, ndarray or sequence of str
            Utterances in parts, each as for :meth:`predict_proba`. With context, the rows of a
            dialogue have to be in one part.
        output : {"label", "proba"}, default="label"
            Whether to yield what :meth:`predict` or what :meth:`predict_proba` returns.

        Yields
        ------
        ndarray
            The predictions of each part.

        Raises
        ------
        ValueError
            If ``output`` is another one, a part is not as described, or, with context, a dialogue
            goes on in the next part.
        """
        return predicted_batches(self, batches, output)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on the rows that have a label; the others are skipped.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            As for :meth:`predict_proba`.
        y : array-like of shape (n,) or (n, n_labels)
            Human labels, missing where None, NaN or pd.NA.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows.

        Returns
        -------
        float
            As :meth:`DialoguePreferenceClassifier.score`: the share of labelled rows that are
            right; multilabel: right in every label, over the rows whose labels are all there.

        Raises
        ------
        ValueError
            If no row has a label, or ``y`` is not of the form and type that the classifier was
            fitted on.
        """
        return accuracy(y, self.predict(X), self.classes_, sample_weight)

    def _logits(self, X: Any, keep: bool = False) -> NDArray[np.float64]:
        # the quick way for a single text; an empty one gets its message below
        if type(X) is list and len(X) == 1 and type(X[0]) is str and X[0].strip() and self._plain:
            check_unicode(X)
            return self._logits_from_texts(*row_of(alone(X[0], self.fitted_labels_.n_texts)))
        dialogues = check_dialogues(X, precomputed=False)
        slots = fitted_slots(dialogues, self.context_turns, self.fitted_labels_.n_texts)
        if self.context_turns:
            warn_of_cut_context(dialogues, self._parts.turns, self.context_turns)
        logits = self._logits_from_texts(*distinct_texts(slots))
        return self.fitted_labels_.among_possible(logits, dialogues)

    @property
    def _plain(self) -> bool:
        """Whether a text alone is enough of an input."""
        labels = self.fitted_labels_
        return not labels.classes_by_speaker and (labels.n_texts == 1 or self.context_turns > 0)

    def _logits_from_texts(
        self, texts: list[str], index: NDArray[np.int64], keep: bool = False
    ) -> NDArray[np.float64]:
        """Logits of rows whose texts stand at these places, in batches of like length.

        As of the classifier; here nothing is kept in any case.
        """
        tokens = self._tokens(texts)
        if len(index) == 1:
            return self._run(tokens, index)
        if self._parts.row_by_row:
            return self._row_by_row(tokens, index)
        lengths = np.array([len(one) for one in tokens] + [0])  # -1 stands for no text
        logits = np.empty((len(index), len(self.classes_)))
        for rows in batches(lengths[index].max(axis=1) * index.shape[1]):
            used, places = np.unique(index[rows], return_inverse=True)
            places = places.reshape(len(rows), -1)
            if used[0] == -1:
                used, places = used[1:], places - 1
            logits[rows] = self._run([tokens[text] for text in used], places)
        return logits

    def _row_by_row(
        self, tokens: list[list[int]], index: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Logits of the rows, each distinct one on its own."""
        distinct, places = np.unique(index, axis=0, return_inverse=True)
        logits = np.empty((len(distinct), len(self.classes_)))
        for row, texts in enumerate(distinct):
            present = texts[texts >= 0]
            own = np.where(texts >= 0, np.arange(len(texts)), -1)[np.newaxis]
            logits[row] = self._run([tokens[text] for text in present], own)[0]
        return logits[places.reshape(-1)]

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        parts = self._parts
        special = parts.special_tokens
        with naming(Path(TOKENIZER), "a tokenizer that can read these texts"):
            if len(texts) == 1:
                encodings = [
                    parts.tokenizer.encode(parts.prompt + texts[0], add_special_tokens=special)
                ]
            else:
                encodings = parts.tokenizer.encode_batch_fast(
                    [parts.prompt + text for text in texts], add_special_tokens=special
                )
        return [encoding.ids for encoding in encodings]

    def _run(self, tokens: list[list[int]], index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Logits of a batch."""
        width = max(1, max(map(len, tokens)))
        ids = np.full((len(tokens), width), self._parts.pad, dtype=np.int64)
        mask = np.zeros((len(tokens), width), dtype=np.int64)
        for row, one in enumerate(tokens):
            ids[row, : len(one)] = one
            mask[row, : len(one)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "index": index}
        with naming(Path(MODEL), "a graph that can run on these texts"):
            return self._parts.session.run(None, inputs)[0].astype(np.float64)

    # -- for scikit-learn's scorers and displays --------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(multi_label=True),
            input_tags=InputTags(string=True, two_d_array=False),
        )

    def __repr__(self) -> str:
        labels = "labels" if self.multilabel_ else "classes"
        return f"<{type(self).__name__} of {len(self.classes_)} {labels}>"


def alone(text: str, n_slots: int) -> list[str]:
    """The texts of a row without a context."""
    return [text] + [""] * (n_slots - 1)


def batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows of like length, the longest first, as many as ``BATCH_TOKENS`` allows."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        n_rows = max(1, BATCH_TOKENS // max(1, int(lengths[order[start]])))
        yield order[start : start + n_rows]
        start += n_rows


def _tokenizer(file: Path) -> Any:
    from tokenizers import Tokenizer

    with naming(file, "a tokenizer"):
        return Tokenizer.from_file(str(file))


def open_session(file: Path, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "serving needs onnxruntime: pip install 'sklearn-dialpref[onnx]'"
        ) from error
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(f"threads must be a positive int or None, got {threads!r}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # a graph has all its weights in it: none are looked for in the working directory
    options.add_session_config_entry(EXTERNAL_FOLDER, str(file.parent / "no other files"))
    try:
        return onnxruntime.InferenceSession(
            file.read_bytes(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=SLOW_FUSIONS,
        )
    except Exception as error:  # onnxruntime's have no common base
        raise ValueError(f"{file} is not an ONNX graph that can be run ({error})") from error
