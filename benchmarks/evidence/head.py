"""A small head on frozen features, in plain torch: distillation, joint training, human stage."""

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.model_selection import GroupKFold, KFold
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = [
    "distil",
    "folds",
    "forward_loss",
    "human_stage",
    "joint",
    "new_head",
    "predict",
    "smoothed_confusion",
    "soft_loss",
    "summed_log_loss",
]

HIDDEN = 128
BATCH = 128
JOINT_HUMAN = 16
LEARNING_RATE = 5e-4
HUMAN_RATE = 2e-4
WEIGHT_DECAY = 0.01
WARM_UP = 0.1
STEPS = (0, 5, 10, 20, 40, 80, 160, 320)
FOLDS = 5

Loss = Callable[[Tensor, Tensor], Tensor]


def new_head(n_features: int, n_classes: int, seed: int) -> nn.Module:
    """Dropout, 128 ReLU, dropout, one logit per class."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(n_features, HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(HIDDEN, n_classes),
    )


def soft_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy on shares of the votes."""
    return cross_entropy(logits, shares)


def forward_loss(confusion: np.ndarray) -> Loss:
    """Forward correction: −Σ_l share_l · log Σ_k p_k · T_kl (Patrini et al., 1609.03683)."""
    matrix = torch.tensor(confusion, dtype=torch.float32)

    def loss(logits: Tensor, shares: Tensor) -> Tensor:
        predicted = logits.softmax(dim=1) @ matrix
        return -(shares * predicted.clamp_min(1e-8).log()).sum(dim=1).mean()

    return loss


def smoothed_confusion(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """``T[k, l] = P(LLM says l | class k)``, smoothed towards its overall accuracy.

    Each class starts from as many pseudo-counts as there are classes, spread as an LLM of the
    overall accuracy that errs evenly would, as in ``sklearn_dialpref``.

    Parameters
    ----------
    true : ndarray of int, shape (n,)
        Human labels.
    predicted : ndarray of shape (n, n_classes)
        Shares of the votes in the same rows.
    """
    if not len(true):
        raise ValueError("no training row has both a human and an LLM label")
    n_classes = predicted.shape[1]
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, true, predicted)
    accuracy = np.trace(counts) / counts.sum()
    prior = np.full_like(counts, (1 - accuracy) / (n_classes - 1))
    np.fill_diagonal(prior, accuracy)
    counts += n_classes * prior
    return counts / counts.sum(axis=1, keepdims=True)


def distil(
    head: nn.Module,
    x: np.ndarray,
    shares: np.ndarray,
    steps: int,
    seed: int,
    loss: Loss = soft_loss,
) -> nn.Module:
    """Train on soft labels; the rate warms up over a tenth of the steps, then falls to zero."""
    inputs, targets = _tensors(x, shares)
    batches = _batches(len(inputs), BATCH, seed)

    def step_loss() -> Tensor:
        rows = next(batches)
        return loss(head(inputs[rows]), targets[rows])

    return _train(head, step_loss, steps, seed)


def joint(
    head: nn.Module,
    llm: tuple[np.ndarray, np.ndarray],
    human: tuple[np.ndarray, np.ndarray],
    steps: int,
    seed: int,
) -> nn.Module:
    """Each step: mean loss of 128 LLM-labelled rows + mean loss of 16 human-labelled rows."""
    inputs, shares = _tensors(*llm)
    human_inputs, codes = _tensors(*human)
    batches = _batches(len(inputs), BATCH, seed)
    human_batches = _batches(len(human_inputs), JOINT_HUMAN, seed + 1)

    def step_loss() -> Tensor:
        rows, some = next(batches), next(human_batches)
        own = cross_entropy(head(human_inputs[some]), codes[some])
        return soft_loss(head(inputs[rows]), shares[rows]) + own

    return _train(head, step_loss, steps, seed)


def human_stage(
    head: nn.Module, x: np.ndarray, codes: np.ndarray, groups: np.ndarray, seed: int
) -> nn.Module:
    """More steps on the human labels, as many as grouped cross-validation finds best.

    The folds start from the same head, and the held-out log-loss is pooled over them.
    """
    losses = np.zeros(len(STEPS))
    for train, held_out in folds(groups):
        for step, state in enumerate(_human_steps(head, x[train], codes[train], STEPS, seed)):
            losses[step] += summed_log_loss(predict(state, x[held_out]), codes[held_out])
    best = STEPS[int(losses.argmin())]
    return next(_human_steps(head, x, codes, (best,), seed))


def predict(head: nn.Module, x: np.ndarray) -> np.ndarray:
    """Class probabilities."""
    was_training = head.training
    head.eval()
    with torch.inference_mode():
        proba = head(torch.from_numpy(np.ascontiguousarray(x))).softmax(dim=1).numpy()
    head.train(was_training)
    return proba


def summed_log_loss(proba: np.ndarray, codes: np.ndarray) -> float:
    """Log-loss of the rows' true classes, summed, a probability counting as 1e-6 at least."""
    return -np.log(np.clip(proba[np.arange(len(codes)), codes], 1e-6, None)).sum()


def folds(groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Five folds that keep dialogues whole, fewer for fewer dialogues; one is cut by rows."""
    n_groups = len(np.unique(groups))
    rows = np.zeros((len(groups), 1))
    if n_groups == 1:
        return list(KFold(min(FOLDS, len(rows)), shuffle=True, random_state=0).split(rows))
    return list(GroupKFold(min(FOLDS, n_groups)).split(rows, groups=groups))


def _human_steps(head, x, codes, stops, seed):
    """A copy of the head, trained on at a constant rate; yielded at each number of steps."""
    head = copy.deepcopy(head).train()
    inputs, targets = _tensors(x, codes)
    torch.manual_seed(seed)
    batches = _batches(len(inputs), BATCH, seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=HUMAN_RATE, weight_decay=WEIGHT_DECAY)
    done = 0
    for stop in stops:
        for _ in range(stop - done):
            rows = next(batches)
            optimizer.zero_grad()
            cross_entropy(head(inputs[rows]), targets[rows]).backward()
            optimizer.step()
        done = stop
        yield head


def _train(head: nn.Module, step_loss: Callable[[], Tensor], steps: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    warm = math.ceil(WARM_UP * steps)

    def rate(step: int) -> float:
        return min((step + 1) / warm, (steps - step) / max(steps - warm, 1))

    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    head.train()
    for _ in range(steps):
        optimizer.zero_grad()
        step_loss().backward()
        optimizer.step()
        schedule.step()
    return head


def _batches(n_rows: int, size: int, seed: int):
    """Rows in shuffled passes without end; a pass smaller than a batch is one batch."""
    generator = torch.Generator().manual_seed(seed)
    size = min(size, n_rows)
    while True:
        order = torch.randperm(n_rows, generator=generator)
        yield from order[: n_rows // size * size].split(size)


def _tensors(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    kind = torch.long if y.ndim == 1 else torch.float32
    return torch.from_numpy(np.ascontiguousarray(x)), torch.as_tensor(y, dtype=kind)
