"""A classifier that answers by a student where it is sure, and asks a teacher about the rest."""

from __future__ import annotations

import copy
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import Bunch, get_tags
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from sklearn_dialpref._compat import HasMethods, Interval, validate_parameter_constraints
from sklearn_dialpref._dialogues.validation import (
    warn_of_other_order,
    wholly_known,
)
from sklearn_dialpref._labels.accuracy import accuracy, rows_with_labels
from sklearn_dialpref._progress import one_bar
from sklearn_dialpref.inspection.labelled_rows import (
    LabelledRows,
    clone_with_classes,
    final_estimator,
    in_classes,
    labelled_rows,
)
from sklearn_dialpref.inspection.out_of_fold import fit_student, takes_llm_labels

from .asking import ask_teacher, student_proba
from .combining import with_answers
from .live import LiveAnswers, dataframe_library
from .rejecting import RejectsUnknown, out_of_fold, rejected_out_of_fold
from .rules import Evidence, rule_for_accuracy, rule_for_share

__all__ = ["EscalatingClassifier"]


class EscalatingClassifier(RejectsUnknown, ClassifierMixin, BaseEstimator):
    r"""Answer by a student where it is sure, and ask a teacher about the rest.

    The student is a small classifier whose answers cost next to nothing; the teacher is an LLM, or
    any other classifier whose answers cost something. From human labels ``fit`` learns how often
    the teacher is right about each class, how much its answer is worth beside the student's, and
    so where asking gains most: where the answer may well change the label for the better. Where
    the student knows more than the teacher, it never asks.

    Without a teacher it abstains: ``predict`` returns None in place of asking, so that a person
    can label these utterances.

    Parameters
    ----------
    student : classifier
        With ``fit(X, y_human, y_llm=…)``, such as :class:`DialoguePreferenceClassifier`, or with
        ``fit(X, y)``; a :class:`~sklearn.pipeline.Pipeline` too. It has ``predict_proba``. It is
        cloned.
    teacher : fitted classifier or None, default=None
        A fitted :class:`LLMAnnotator`, or any fitted classifier with ``predict_proba``, whose
        classes hold all human labels. It is never fitted, and clones of this estimator share it.
        None: abstain.
    max_share : float, default=None
        Share of the utterances, in [0, 1], that are asked about at most, in data like that of
        ``fit``. It sets a threshold, so that an utterance gets the same answer alone as among
        others; so the share of a single call can differ.
    target_accuracy : float, default=None
        Accuracy in (0, 1) that is wanted, of all answers or, without a teacher, of those given.
        As few utterances are asked about as will do. Set this or `max_share`.
    confidence : float, default=0.95
        Probability with which `target_accuracy` is reached at least. Used only with it.
    reject_threshold : float, default=None
        Share of known utterances, in (0, 1), that may be taken for unknown ones: ``predict``
        gives None for an utterance that is less like the labelled ones than all but this share
        of them, and the teacher is not asked about it. The student needs ``embed``. It can be
        set alone, without a teacher.
    cv : int, default=5
        Number of folds, of whole dialogues, in which students are trained to see how good they
        are on dialogues that they have not seen.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The teacher's classes, sorted; without a teacher, those of the labels.
    student_ : classifier
        The student, fitted with all labels.
    threshold_ : float
        An utterance is asked about if the expected gain is above it or, without a teacher, the
        probability that the student is wrong; infinite where nothing is.
    asks_classes_ : ndarray
        Classes of the student's answer about which the teacher may be asked; without a teacher
        all.
    live_ : LiveAnswers
        What a :class:`DialogueStream` uses of all this.
    combination_ : Combination or None
        The teacher's ``likelihood`` of naming each class, for each human one, and the weights
        of the two answers; None without a teacher.
    promise_ : Bunch or None
        With `target_accuracy` only: whether it is ``kept`` with that confidence, lower ``bound``
        and ``accuracy`` on the human labels, ``n_labels`` and ``n_dialogues`` that show it.

    See Also
    --------
    LLMAnnotator : The usual teacher; its ``predict_proba`` can ask about some utterances only.
    CoverageAccuracyDisplay : Accuracy against the share that is asked about.

    Notes
    -----
    Let :math:`p` be the student's probabilities and :math:`C_{ct}` the probability that the
    teacher names *t* where people name *c*, from counts shrunk towards the teacher as a whole.
    After the answer *t*, the classes have the probabilities
    :math:`q_t(c) \propto p_c^a C_{ct}^b`, with weights *a* and *b* fitted by log-loss. Asking is
    expected to gain :math:`\sum_t (\sum_c p_c C_{ct}) (\max_c q_t(c) - q_t(\hat c))`, where
    :math:`\hat c` is the student's answer: the value of information. It is 0 where no answer can
    change the label.

    ``fit`` trains `cv` + 1 students. All else is learned from the answers of `cv` of them about
    dialogues that they have not seen. As they have fewer labels than ``student_``, promises are a
    little lower than they could be. A promise holds for dialogues like those with human labels,
    whose rows may depend on each other, and needs some hundred labels of 20 or more dialogues.

    With `reject_threshold`, let :math:`d_c` be the distance to the fifth nearest labelled
    utterance of class *c*, among embeddings after linear discriminant analysis. The novelty of an
    utterance is :math:`\sum_c p_c (d_c - \log p_c)`. It is compared with that of labelled
    utterances, each by a student that has not seen its dialogue: a conformal p-value. Later turns
    that only confirm, such as "yes please", are like those of known classes and seldom rejected.

    The estimator has no file format of its own: save ``student_`` and the annotator's settings
    separately, or pickle it all.

    References
    ----------
    Angelopoulos et al., "Learn then test", 2021, arXiv:2110.01052. Korn and Graubard, "Confidence
    intervals for proportions with small expected number of positive counts estimated from survey
    data", Survey Methodology 24, 1998. Bates et al., "Testing for outliers with conformal
    p-values", Annals of Statistics 51, 2023, arXiv:2104.08279.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier
    >>> from sklearn_dialpref.datasets import make_dialogues
    >>> from sklearn_dialpref import EscalatingClassifier
    >>> data = make_dialogues(n_dialogues=60, n_features=8, random_state=0)
    >>> model = DialoguePreferenceClassifier("precomputed", schedule="joint", random_state=0)
    >>> teacher = model.fit(data.X, data.y_true)  # stands for a model that knows much
    >>> student = DialoguePreferenceClassifier(
    ...     "precomputed", schedule="joint", max_epochs=2, random_state=0
    ... )
    >>> clf = EscalatingClassifier(student, teacher, max_share=0.2).fit(data.X, data.y_human)
    >>> clf.expected_cost(data.X).share < 0.3
    True
    >>> clf.score(data.X, data.y_true) > clf.student_.score(data.X, data.y_true)
    True
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "student": [HasMethods(["fit"])],
        "teacher": [HasMethods(["predict_proba"]), None],
        "max_share": [Interval(Real, 0, 1, closed="both"), None],
        "target_accuracy": [Interval(Real, 0, 1, closed="neither"), None],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
        "reject_threshold": [Interval(Real, 0, 1, closed="neither"), None],
        "cv": [Interval(Integral, 2, None, closed="left")],
    }

    # y_human is the target, whatever its name; y_llm is wanted wherever it is passed along
    __metadata_request__fit = {"y_human": UNUSED, "y_llm": True}

    def __init__(
        self,
        student: Any,
        teacher: Any = None,
        *,
        max_share: float | None = None,
        target_accuracy: float | None = None,
        confidence: float = 0.95,
        reject_threshold: float | None = None,
        cv: int = 5,
    ) -> None:
        self.student = student
        self.teacher = teacher
        self.max_share = max_share
        self.target_accuracy = target_accuracy
        self.confidence = confidence
        self.reject_threshold = reject_threshold
        self.cv = cv

    def __sklearn_clone__(self) -> EscalatingClassifier:
        """A clone that shares the teacher, which would otherwise no longer be fitted."""
        params = self.get_params(deep=False)
        cloned = {name: value if name == "teacher" else clone(value, safe=False)
                  for name, value in params.items()}  # fmt: skip
        copied = type(self)(**cloned)
        for setting in ("_metadata_request", "_sklearn_output_config"):
            if setting in self.__dict__:
                setattr(copied, setting, copy.deepcopy(self.__dict__[setting]))
        return copied

    # -- fitting ----------------------------------------------------------------------------

    def fit(self, X: Any, y_human: Any, y_llm: Any = None) -> EscalatingClassifier:
        """Train the student, and learn about which of its answers the teacher is asked.

        The teacher is asked about the rows with a human label that have none in ``y_llm``.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str, of n rows
            Utterances, in any form that the student accepts.
        y_human : array-like of shape (n,)
            Human labels; None, NaN or pd.NA where missing.
        y_llm : array-like of shape (n,), (n, n_votes) or (n, n_classes), default=None
            Labels, votes or scores that this teacher gave; missing as in ``y_human``, a row of
            NaN for missing scores. A student that can learn from them does.

        Returns
        -------
        self : EscalatingClassifier

        Raises
        ------
        NotFittedError
            If the teacher is not fitted.
        ValueError
            If a parameter, ``X`` or the labels are not as described, there is no human label, or
            the teacher does not know a class of the labels.
        """
        self._check_parameters()
        warn_of_other_order(X, y_human=y_human, y_llm=y_llm)
        student = self._student_with_classes()
        rows = labelled_rows(student, X, y_human, y_llm)
        _check_labels(rows)
        with one_bar("EscalatingClassifier", self.cv + 1):
            self._fit_rows(X, rows, student)
        return self

    def _fit_rows(self, X: Any, rows: LabelledRows, student: Any) -> None:
        self.classes_ = self._all_classes(rows.targets.classes)
        takes_llm = takes_llm_labels(student, None)
        proba, novelty = out_of_fold(student, rows, self.cv, takes_llm, self.reject_threshold)
        proba = in_classes(proba, rows.targets.classes, self.classes_)

        order = rows.order  # sums do not depend on that of X
        known = order[rows.targets.has_human[order]]
        answered = known[~rejected_out_of_fold(novelty, self.reject_threshold)[known]]
        y = np.searchsorted(self.classes_, rows.targets.classes)[rows.targets.human[answered]]
        teacher = None if self.teacher is None else self._teacher_answers(rows)[answered]
        seen = Evidence(proba[answered], teacher, y, rows.unit[answered])
        if self.target_accuracy is None:
            rule = rule_for_share(seen, proba, float(self.max_share or 0))
            self._rule, self.promise_ = rule, None
        else:
            goal = self.target_accuracy, self.confidence
            self._rule, self.promise_ = rule_for_accuracy(seen, *goal)
        self.threshold_, self.combination_ = self._rule.threshold, self._rule.combination
        self.asks_classes_ = self.classes_[self._rule.asks]

        self.student_ = clone_with_classes(student, rows.targets)
        fit_student(self.student_, rows, order, takes_llm)
        self._rejection = self._fit_rejection(rows, order, novelty)
        known_to_streams = self._rule, self._rejection, dataframe_library(X)
        self.live_ = LiveAnswers(self.classes_, self.student_, self.teacher, *known_to_streams)

    def _check_parameters(self) -> None:
        params = self.get_params(deep=False)
        validate_parameter_constraints(
            self._parameter_constraints, params, caller_name=type(self).__name__
        )
        rejects_only = self.reject_threshold is not None and self.teacher is None
        n_goals = (self.max_share is not None) + (self.target_accuracy is not None)
        if n_goals == 2 or (n_goals == 0 and not rejects_only):
            raise ValueError(
                "set either max_share, the share to ask about, or target_accuracy, got "
                f"max_share={self.max_share!r} and target_accuracy={self.target_accuracy!r}"
            )
        if self.teacher is not None:
            check_is_fitted(self.teacher)

    def _student_with_classes(self) -> Any:
        """The student, who is told of the teacher's classes if it can be and was told none."""
        student = clone(self.student)
        final = final_estimator(student)
        if self.teacher is not None and final.get_params(deep=False).get("classes", 0) is None:
            final.set_params(classes=np.sort(self.teacher.classes_).tolist())
        return student

    def _all_classes(self, labels: NDArray[Any]) -> NDArray[Any]:
        if self.teacher is None:
            return labels
        classes = np.sort(np.asarray(self.teacher.classes_))
        if classes.ndim != 1 or not set(labels.tolist()) <= set(classes.tolist()):
            raise ValueError(
                f"the labels are of the classes {labels.tolist()}, but the teacher knows "
                f"{classes.tolist()}; use a teacher for all classes of the labels"
            )
        return classes

    def _teacher_answers(self, rows: LabelledRows) -> NDArray[np.float64]:
        """Of rows with a human label: answers that are there, and those of the teacher, asked."""
        answers = np.full((len(rows.unit), len(self.classes_)), np.nan)
        has_score = rows.targets.has_score
        if rows.targets.scores is not None:
            scores = rows.targets.scores[has_score]
            answers[has_score] = in_classes(scores, rows.targets.classes, self.classes_)
        asked = rows.targets.has_human & ~has_score
        if asked.any():
            answers[asked] = ask_teacher(self.teacher, rows.X, asked)[asked]
        return answers

    # -- answering --------------------------------------------------------------------------

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of each utterance, after asking the teacher about some.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str, of n rows
            Utterances, with whole dialogues where student or teacher use context.

        Returns
        -------
        ndarray of shape (n,)
            Of the labels' type; of object, with None, where there is no answer: without a teacher,
            and for what `reject_threshold` takes for unknown.

        Raises
        ------
        NotFittedError
            If it is not fitted.
        """
        proba = self._student_proba(X)
        asked, unknown = self._asked(X, proba)
        if self.teacher is not None:
            proba = self._after_asking(X, proba, asked)
        labels = self.classes_[proba.argmax(axis=1)]
        silent = unknown | asked if self.teacher is None else unknown
        if silent.any():
            labels = labels.astype(object)
            labels[silent] = None
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probability of each class, after asking the teacher about some utterances.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str, of n rows
            As for :meth:`predict`.

        Returns
        -------
        ndarray of shape (n, n_classes)
            The student's, combined with the teacher's answer where it was asked and gave one;
            without a teacher the student's of all utterances.

        Raises
        ------
        NotFittedError
            If it is not fitted.
        """
        proba = self._student_proba(X)
        if self.teacher is None:
            return proba
        return self._after_asking(X, proba, self._asked(X, proba)[0])

    def escalates(self, X: Any) -> NDArray[np.bool_]:
        """About which utterances the teacher is asked; asks nobody.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str, of n rows
            As for :meth:`predict`.

        Returns
        -------
        ndarray of bool, shape (n,)
            Not those that `reject_threshold` takes for unknown. Without a teacher, which get no
            answer.

        Raises
        ------
        NotFittedError
            If it is not fitted.
        """
        asked, unknown = self._asked(X, self._student_proba(X))
        return asked | unknown if self.teacher is None else asked

    def expected_cost(self, X: Any) -> Bunch:
        """How much ``predict`` would ask; asks nobody.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str, of n rows
            As for :meth:`predict`.

        Returns
        -------
        Bunch
            ``n_asked``, ``share`` of the utterances and, if the teacher is an
            :class:`LLMAnnotator`, what its ``estimate_cost`` says of them.

        Raises
        ------
        NotFittedError
            If it is not fitted.
        """
        asked = self.escalates(X)
        cost = Bunch(n_asked=int(asked.sum()), share=float(asked.mean()))
        if hasattr(self.teacher, "estimate_cost"):
            cost.update(self.teacher.estimate_cost(X, asked=asked))
        return cost

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on the rows that have a label and get an answer; the others are skipped.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str, of n rows
            As for :meth:`predict`.
        y : array-like of shape (n,)
            Human labels, missing where None, NaN or pd.NA.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If no row has both.
        """
        predicted = self.predict(X)
        known = rows_with_labels(y, len(predicted))
        known &= wholly_known(predicted)
        if not known.any():
            raise ValueError(
                "score needs rows with a label that get an answer, but there are none; pass "
                "labels, or raise max_share or lower target_accuracy if nothing is answered"
            )
        return accuracy(y, predicted, self.classes_, sample_weight, known)

    @property
    def n_features_in_(self) -> int:
        """Number of features, where the student counts them."""
        return int(self.student_.n_features_in_)

    # -- one step each ----------------------------------------------------------------------

    def _student_proba(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self, "student_")
        return student_proba(self.student_, X, self.classes_)

    def _after_asking(
        self, X: Any, proba: NDArray[np.float64], asked: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        if not asked.any():
            return proba
        assert self.combination_ is not None
        return with_answers(proba, ask_teacher(self.teacher, X, asked), self.combination_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = copy.deepcopy(get_tags(self.student).input_tags)
        tags.input_tags.sparse = False
        tags.classifier_tags.multi_label = False
        return tags


def _check_labels(rows: LabelledRows) -> None:
    if rows.targets.multilabel:
        raise ValueError(
            "y_human is 2-D, several labels of an utterance, which EscalatingClassifier cannot "
            "learn from; pass one label as a 1-D y_human, and an estimator for each"
        )
    if not rows.targets.has_human.any():
        raise ValueError(
            "EscalatingClassifier learns from human labels where asking helps, but all of "
            "y_human is missing; label some dialogues"
        )
