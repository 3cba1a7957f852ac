"""The training recipe: every constant, and every rule that ``"auto"`` stands for.

What each constant rests on is in ``benchmarks/results/constants.md``, which
``benchmarks/constants.py`` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skorch.callbacks import Callback

# -- rate and size of the steps
BATCH = {"frozen": 128, "fine_tuned": 32}  # utterances
HEAD_RATE = 5e-4  # of a head on many inputs and few classes
MANY_INPUTS = 1920
MOST_HEAD_RATE = 4e-3
MOST_HEAD_LR_MULTIPLIER = 8.0
MULTILABEL_HEAD_LR_MULTIPLIER = 2.0
ENCODER_RATE = 1e-4
RATE_BESIDE_ENCODER = 3e-4  # of a head beside an encoder that is trained
WEIGHT_DECAY = {"frozen": 0.1, "fine_tuned": 0.01}
WARMUP = 0.1  # share of a stage's steps in which the rate rises
LARGEST_GRADIENT = 1.0  # its norm

# -- length of the stages: epochs, and steps at least
TEACHER_STAGE = {"frozen": (5, 300), "fine_tuned": (1, 90)}
HUMAN_STAGE_ALONE = {"frozen": (15, 200), "fine_tuned": (6, 90)}
HUMAN_STAGE_AFTER = {"frozen": (20, 40), "fine_tuned": (3, 0)}
JOINT_STAGE_AFTER = {"frozen": (3, 150), "fine_tuned": (1, 0)}
JOINT_HUMAN_ROUNDS = {"frozen": 20, "fine_tuned": 6}  # of the human rows, at least
JOINT_HUMAN_SHARE = 8  # at least a batch's eighth are human-labelled rows beside it
JOINT_RATE_AFTER = 0.2  # share of the rate, at least, in a joint stage after another
PATIENCE = 3  # epochs without improvement, with early_stopping

# -- the head
WIDTH = 128
MOST_DROPOUT = 0.5
LEAST_DROPOUT = 0.1
MANY_ROWS = 50_000  # labelled rows up to which the head drops half of its inputs

# -- how far the human labels are followed
N_FOLDS = 3
MANY_LABELS = 1000  # human-labelled rows from which on one fold tells enough
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from the teacher's student to people's
CAUTIOUS = 0.25  # the share where people labelled a single row, so that none can be held out
LEAST_TEMPERATURE = 0.5
LEVEL_ROWS = 2048  # that tell the teacher's level of classes without human labels
CALIBRATION_ROWS = 2048  # that tell scale and level after a stage on pairs

# -- the teacher: of no use, or biased
FEWEST_TO_JUDGE = 20  # human-labelled rows
SIGNIFICANT = 2.0  # standard scores
SMALL_EFFECT = 0.2  # standard deviations of a row
BIAS_FOLDS = 5
BIAS_DRAWS = 1000
SURE = 0.975  # share of the draws in which correcting the teacher has to help
GRAVE = 0.05  # gain in accuracy on held-out dialogues from which on a bias is corrected

# -- thresholds of multilabel problems
THRESHOLD_DRAWS = 100
DRAWN_ROWS = 1_000_000  # at most in all draws together; of more rows one draw is enough
COMMON_POSITIVES = 10

# -- batches
TOKENS_PER_UTTERANCE = 32  # an utterance of up to this many tokens costs one unit of batch_size
MAX_SEGMENT = 64  # rows; all pairs of a segment are used, so they stay linear in the rows


@dataclass(frozen=True)
class Recipe:
    """Settings of the training.

    ``max_epochs`` is None where :func:`auto_epochs` decides; ``learning_rate`` is the peak of
    a first stage; ``head_lr_multiplier`` is how much faster than among few classes a head has
    to learn.
    """

    head_lr_multiplier: float
    margin_scale: float
    min_gap: float
    smoothing: float
    loss_weight: float
    pair_weight: float
    max_epochs: int | None
    learning_rate: float
    batch_size: int
    early_stopping: bool
    callbacks: Sequence[Callback]
    device: str
    seed: int
    verbose: int
    accelerator: Any = None

    @classmethod
    def of(
        cls,
        estimator: Any,
        seed: int,
        device: str,
        *,
        n_inputs: int,
        n_classes: int,
        frozen: bool,
        multilabel: bool,
    ) -> Recipe:
        """From the parameters of the estimator, and what is trained."""
        multiplier = head_lr_multiplier(n_classes, multilabel=multilabel)

        def chosen(value: Any, auto: Any) -> Any:
            return auto if value == "auto" else value

        rate = head_rate(n_inputs, multiplier) if frozen else ENCODER_RATE
        return cls(
            head_lr_multiplier=multiplier,
            margin_scale=estimator.margin_scale,
            min_gap=estimator.min_gap,
            smoothing=estimator.smoothing,
            loss_weight=estimator.loss_weight,
            pair_weight=estimator.pair_weight,
            max_epochs=chosen(estimator.max_epochs, None),
            learning_rate=chosen(estimator.learning_rate, rate),
            batch_size=chosen(estimator.batch_size, BATCH[_kind(frozen)]),
            early_stopping=estimator.early_stopping,
            callbacks=estimator.callbacks or [],
            device=device,
            seed=seed,
            verbose=int(estimator.verbose),
            accelerator=estimator.accelerator,
        )


def _kind(frozen: bool) -> str:
    return "frozen" if frozen else "fine_tuned"


def head_lr_multiplier(n_classes: int, *, multilabel: bool) -> float:
    """How much faster than among few classes a head has to learn: of many, most are rare."""
    return (
        MULTILABEL_HEAD_LR_MULTIPLIER
        if multilabel
        else min(MOST_HEAD_LR_MULTIPLIER, max(1.0, n_classes / 4 - 1))
    )


def head_rate(n_inputs: int, multiplier: float) -> float:
    """Peak learning rate of a head alone; a step moves the logits the less, the fewer inputs."""
    for_inputs = min(4.0, max(1.0, MANY_INPUTS / n_inputs))
    return min(MOST_HEAD_RATE, HEAD_RATE * multiplier * for_inputs)


def dropout_rate(n_rows: int) -> float:
    """Share of its inputs that the head drops, by the number of labelled rows."""
    # the inputs are many for few labels; with very many labels half is too much to drop
    return max(LEAST_DROPOUT, MOST_DROPOUT * min(1.0, MANY_ROWS / n_rows))


def weight_decay(*, frozen: bool) -> float:
    return WEIGHT_DECAY[_kind(frozen)]


def rate_share(step: int, total: int) -> float:
    """Share of the peak learning rate in a step: it rises over the first tenth, and then falls."""
    # AdamW's estimates of the gradients' size rest on few batches at first
    warm = max(1.0, WARMUP * total)
    return min((step + 1) / warm, max(0.0, (total - step) / max(1.0, total - warm)))


def auto_epochs(
    n_batches: int, *, teacher: bool, first: bool, frozen: bool, n_human_batches: int = 0
) -> int:
    """Epochs of a stage where ``max_epochs`` leaves them open.

    Parameters
    ----------
    n_batches : int
        Of an epoch.
    teacher : bool
        Whether the stage learns from the teacher's scores.
    first : bool
        Whether no stage comes before it.
    frozen : bool
    n_human_batches : int, default=0
        In a joint stage, how many batches the human-labelled rows would make on their own.
    """
    if teacher:
        lengths = TEACHER_STAGE if first else JOINT_STAGE_AFTER
    else:
        lengths = HUMAN_STAGE_ALONE if first else HUMAN_STAGE_AFTER
    epochs, steps = lengths[_kind(frozen)]
    rounds = JOINT_HUMAN_ROUNDS[_kind(frozen)]
    return max(epochs, -(-steps // n_batches), -(-rounds * n_human_batches // n_batches))


def rate_after(n_human: int, n_scored: int) -> float:
    """Share of the peak rate in a joint stage that follows another, by its rows of both kinds."""
    # a high rate would unlearn the first stage for the few human labels
    return max(JOINT_RATE_AFTER, n_human / (n_human + n_scored))
