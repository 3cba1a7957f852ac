"""How a fitted classifier predicts: tables, iterators of tables, and the texts of streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from ._dialogues.cut_context import warn_of_cut_context
from ._dialogues.texts import distinct_texts, fitted_slots, text_slots
from ._dialogues.validation import check_dialogues
from ._labels.accuracy import accuracy
from ._labels.fitted import HasFittedLabels, predicted_batches
from ._training.inputs import as_feature_tensor, check_finite_logits

if TYPE_CHECKING:
    from torch import Tensor

    from ._student.student import EmbeddedRows


class PredictsDialogues(HasFittedLabels):
    """Mixin that gives a classifier ``predict_proba``, ``predict`` and ``score``."""

    encoder: Any
    context_turns: int
    memory: Any
    n_jobs: int | None
    verbose: int
    _text_encoder: Any
    net_: Any
    data_summary_: dict[str, int]
    _frozen: Any

    @property
    def _precomputed(self) -> bool:
        return isinstance(self.encoder, str) and self.encoder == "precomputed"

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probability of each class.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            Utterances, in any form that ``fit`` takes; with context, the previous utterances of
            their dialogues too.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Rows sum to 1, columns in the order of ``classes_``; multilabel: the probability of
            each label on its own.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If ``X`` is not as described, or too far outside what was trained on.

        Warns
        -----
        UserWarning
            If ``X`` lacks utterances that ``context_turns`` would show.
        """
        logits = self._logits(X)
        return self.fitted_labels_.probabilities(logits)

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each utterance, or its labels.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            As for :meth:`predict_proba`.

        Returns
        -------
        ndarray of shape (n,), or of int of shape (n, n_labels)
            Labels of the type that ``fit`` was given; multilabel: 1 where a label's probability
            reaches its threshold.
        """
        logits = self._logits(X)
        return self.fitted_labels_.labels(logits)

    def embed(self, X: Any, *, keep: bool = True) -> NDArray[np.float32]:
        """The embedding of each utterance, without its context.

        Similar utterances have similar embeddings, whatever their labels.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            As for :meth:`predict_proba`.
        keep : bool, default=True
            Whether a frozen encoder may keep the embeddings, for this process or in ``memory``.

        Returns
        -------
        ndarray of float32, of shape (n, n_dimensions)
            The sentence embedding of the student's encoder; with ``encoder="precomputed"``, the
            features.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If ``X`` is not as described.

        Examples
        --------
        >>> from sklearn_dialpref import DialoguePreferenceClassifier
        >>> X, y = ["Where is my parcel?", "It is broken.", "Thanks!", "Great."], [0, 0, 1, 1]
        >>> clf = DialoguePreferenceClassifier(random_state=0).fit(X, y)
        >>> clf.embed(X).shape
        (4, 384)
        """
        from ._student.student import PART

        check_is_fitted(self, "net_")
        dialogues = check_dialogues(X, precomputed=self._precomputed, estimator=self, reset=False)
        if dialogues.features is not None:
            return np.array(dialogues.features, dtype=np.float32)
        texts, index = distinct_texts(text_slots(dialogues, 0)[:1])
        encoder = self._encoder() if keep else self._text_encoder
        table, width = encoder.table(texts), encoder.n_context
        embedded = np.empty((len(index), width), dtype=np.float32)
        for start in range(0, len(index), PART):
            part = slice(start, start + PART)
            embedded[part] = table[index[part, 0]][:, -width:]
        return embedded

    def predict_batches(self, batches: Iterable[Any], *, output: str = "label") -> Iterator[Any]:
        """Predict tables one after the other, in memory for one of them.

        Parameters
        ----------
        batches : iterable of DataFrame, ndarray or sequence of str
            Utterances in parts, each as for :meth:`predict_proba`. With ``context_turns``, the
            rows of a dialogue have to be in one part.
        output : {"label", "proba"}, default="label"
            Whether to yield what :meth:`predict` or what :meth:`predict_proba` returns.

        Yields
        ------
        ndarray
            The predictions of each part. Nothing is kept of its texts, not in ``memory`` either.

        Raises
        ------
        ValueError
            If ``output`` is another one, a part is not as described, or, with ``context_turns``,
            a dialogue goes on in the next part.

        Examples
        --------
        >>> from sklearn_dialpref import DialoguePreferenceClassifier
        >>> X, y = ["Where is my parcel?", "It is broken.", "Thanks!", "Great."], [0, 0, 1, 1]
        >>> clf = DialoguePreferenceClassifier(random_state=0).fit(X, y)
        >>> [labels.tolist() for labels in clf.predict_batches([X[:2], X[2:]])]
        [[0, 0], [1, 1]]
        """
        check_is_fitted(self, "net_")
        return predicted_batches(self, batches, output)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on the rows that have a label; the others are skipped.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            Utterances, with whole dialogues if context is used.
        y : array-like of shape (n,) or (n, n_labels)
            Human labels, missing where None, NaN or pd.NA.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows.

        Returns
        -------
        float
            Share of labelled rows that are right; multilabel: right in every label, over the
            rows whose labels are all there.

        Raises
        ------
        ValueError
            If no row has a label, or ``y`` is not of the form and type that ``fit`` was given.
        """
        return accuracy(y, self.predict(X), self.classes_, sample_weight)

    def _logits(self, X: Any, keep: bool = True) -> NDArray[np.float64]:
        check_is_fitted(self, "net_")
        dialogues = check_dialogues(X, precomputed=self._precomputed, estimator=self, reset=False)
        slots = fitted_slots(dialogues, self.context_turns, self.fitted_labels_.n_texts)
        if self.context_turns:
            warn_of_cut_context(dialogues, self.data_summary_, self.context_turns)
        if dialogues.features is None:
            logits = self._logits_from_texts(*distinct_texts(slots), keep)
        else:
            logits = self._logits_from_features(as_feature_tensor(dialogues.features))
        return self.fitted_labels_.among_possible(logits, dialogues)

    def _logits_from_texts(
        self, texts: Sequence[str], index: Any, keep: bool = True
    ) -> NDArray[Any]:
        """Logits of rows whose texts stand at these places; a frozen encoder may keep them."""
        from ._student.student import embedded_rows

        encoder = self._encoder() if keep else self._text_encoder
        return self._logits_from_features(embedded_rows(encoder, texts, index))

    def _encoder(self) -> Any:
        """The encoder; a frozen one with its store, as the parameters are now."""
        if not self._frozen:
            return self._text_encoder
        self._frozen.set_options(self.memory, self.n_jobs, bool(self.verbose))
        return self._frozen

    def _logits_from_features(self, inputs: Tensor | EmbeddedRows) -> NDArray[np.float64]:
        import torch

        from ._student.student import in_parts

        net = self.net_
        with torch.inference_mode():
            net.module_.eval()
            parts = [net.infer({"features": part}).cpu() for part in in_parts(inputs)]
        logits = torch.cat(parts).double()
        check_finite_logits(logits, inputs)
        return logits.numpy()
