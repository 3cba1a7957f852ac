"""Each loss against its formula in numpy, on ties, single rows and missing scores."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sklearn_dialpref.losses import (
    LOSSES,
    POINTWISE,
    conservative,
    cross_entropy,
    forward_corrected,
    hinge,
    noise_reduced,
    robust,
    soft_cross_entropy,
)
from sklearn_dialpref.pairs import dialogue_pairs

PAIRWISE = sorted(set(LOSSES) - POINTWISE)
NO_PAIRS = torch.empty(2, 0, dtype=torch.long)
CONFUSION = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.05, 0.15, 0.8]]).double()
BINARY_CONFUSION = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.3, 0.7]]]).double()


def softplus(x):
    return np.log1p(np.exp(x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


PAIR_FORMULAS = {
    "noise_reduced": lambda m, d, g, e: softplus(g * abs(m) - np.sign(m) * d),
    "hinge": lambda m, d, g, e: np.maximum(0, g * abs(m) - np.sign(m) * d),
    "ranknet": lambda m, d, g, e: (
        -sigmoid(g * m) * np.log(sigmoid(d)) - sigmoid(-g * m) * np.log(sigmoid(-d))
    ),
    "margin_mse": lambda m, d, g, e: (d - g * m) ** 2,
    "conservative": lambda m, d, g, e: (
        (1 - e) * softplus(g * abs(m) - np.sign(m) * d) + e * softplus(g * abs(m) + np.sign(m) * d)
    ),
    "robust": lambda m, d, g, e: (
        (
            (1 - e) * softplus(g * abs(m) - np.sign(m) * d)
            - e * softplus(g * abs(m) + np.sign(m) * d)
        )
        / (1 - 2 * e)
    ),
}


def make_batch(seed=0, n=8, n_classes=3):
    rng = np.random.RandomState(seed)
    logits = torch.from_numpy(rng.randn(n, n_classes))
    scores = torch.from_numpy(rng.dirichlet(np.ones(n_classes), size=n))
    pairs = torch.from_numpy(np.stack(dialogue_pairs(np.arange(n) % 2)))
    return logits, scores, pairs


def call(name, logits, scores, pairs, **options):
    if name == "forward_corrected" and "confusion" not in options:
        n_classes = logits.shape[1]
        options["confusion"] = torch.full((n_classes, n_classes), 1 / n_classes).to(logits)
    return LOSSES[name](logits, scores, pairs, **options)


def test_every_loss_is_tested():
    assert set(PAIR_FORMULAS) == set(PAIRWISE)
    assert set(LOSSES) > POINTWISE


# -- pairs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("min_gap", [0.0, 0.2])
def test_pair_losses_follow_their_formula(name, min_gap):
    logits, scores, pairs = make_batch()
    terms = []
    for i, j in pairs.T.tolist():
        for c in range(3):
            m = (scores[i, c] - scores[j, c]).item()
            d = (logits[i, c] - logits[j, c]).item()
            if abs(m) > min_gap:
                terms.append(PAIR_FORMULAS[name](m, d, 2.5, 0.1))
    assert len(terms) > 0 and (min_gap == 0 or len(terms) < 3 * pairs.shape[1])
    options = {"margin_scale": 2.5, "min_gap": min_gap, "smoothing": 0.1}
    assert_allclose(LOSSES[name](logits, scores, pairs, **options).item(), np.mean(terms))


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        # m = 0.5, d = -1, γ = 2: the student contradicts the teacher
        ("noise_reduced", np.log(1 + np.exp(2))),
        ("hinge", 2.0),
        ("ranknet", np.log(1 + np.exp(-1)) + 1 / (1 + np.exp(-1))),
        ("margin_mse", 4.0),
        ("conservative", 0.75 * np.log(1 + np.exp(2)) + 0.25 * np.log(2)),
        ("robust", (0.75 * np.log(1 + np.exp(2)) - 0.25 * np.log(2)) / 0.5),
    ],
)
def test_pair_losses_by_hand(name, by_hand):
    logits = torch.tensor([[0.0], [1.0]]).double()
    scores = torch.tensor([[0.75], [0.25]]).double()
    for pair in ([[0], [1]], [[1], [0]]):  # the order in which a pair is named is no matter
        loss = LOSSES[name](logits, scores, torch.tensor(pair), margin_scale=2.0, smoothing=0.25)
        assert_allclose(loss.item(), by_hand)


@pytest.mark.parametrize("name", PAIRWISE)
def test_a_bias_of_the_teacher_cancels(name):
    logits, scores, pairs = make_batch()
    bias = torch.tensor([0.2, -0.1, 0.0]).double()
    loss = LOSSES[name](logits, scores, pairs)
    assert_allclose(LOSSES[name](logits, scores + bias, pairs), loss)
    assert_allclose(LOSSES[name](logits + 3 * bias, scores, pairs), loss)


@pytest.mark.parametrize("case", ["ties", "small gaps", "single row", "all NaN", "no pairs"])
@pytest.mark.parametrize("name", PAIRWISE)
def test_no_order_gives_a_connected_zero(name, case):
    logits, scores, pairs = make_batch()
    if case == "ties":
        scores = torch.full_like(scores, 1 / 3)
    elif case == "all NaN":
        scores = torch.full_like(scores, float("nan"))
    elif case == "single row":
        logits, scores, pairs = logits[:1], scores[:1], NO_PAIRS
    elif case == "no pairs":
        pairs = NO_PAIRS
    logits.requires_grad_()
    loss = LOSSES[name](logits, scores, pairs, min_gap=1.0 if case == "small gaps" else 0.0)
    loss.backward()
    assert loss.item() == 0.0
    assert_allclose(logits.grad, 0.0)


@pytest.mark.parametrize("name", PAIRWISE)
def test_unscored_rows_order_nothing(name):
    logits, scores, pairs = make_batch()
    scores[2] = float("nan")
    logits.requires_grad_()
    loss = LOSSES[name](logits, scores, pairs)
    kept = pairs[:, (pairs != 2).all(dim=0)]
    assert_allclose(loss.item(), LOSSES[name](logits, scores, kept).item())
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert_allclose(logits.grad[2], 0.0)


def test_robust_is_unbiased_under_flips():
    logits, scores, pairs = make_batch()
    clean = noise_reduced(logits, scores, pairs)
    flipped_loss = robust(logits, 1 - scores, pairs, smoothing=0.3)  # every gap turns its sign
    kept_loss = robust(logits, scores, pairs, smoothing=0.3)
    assert_allclose(0.7 * kept_loss + 0.3 * flipped_loss, clean)


@pytest.mark.parametrize("loss", [conservative, robust])
def test_without_smoothing_the_noise_reduced_loss_remains(loss):
    assert_allclose(loss(*make_batch()), noise_reduced(*make_batch()))


def test_hinge_is_zero_beyond_the_margin():
    logits, scores = torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0], [0.0]])
    assert hinge(logits, scores, torch.tensor([[0], [1]])).item() == 0.0


# -- rows -----------------------------------------------------------------------------------


def test_soft_cross_entropy_follows_its_formula():
    logits, scores, pairs = make_batch()
    expected = -(scores.numpy() * np.log(softmax(logits.numpy()))).sum(axis=1).mean()
    assert_allclose(soft_cross_entropy(logits, scores, pairs).item(), expected)


def test_cross_entropy_follows_its_formula():
    logits, scores, pairs = make_batch()
    hard = scores.numpy().argmax(axis=1)
    expected = -np.log(softmax(logits.numpy()))[np.arange(8), hard].mean()
    assert_allclose(cross_entropy(logits, scores, pairs).item(), expected)


def test_cross_entropy_shares_the_target_between_ties():
    logits = torch.tensor([[1.0, 0.0, 3.0]]).double()
    scores = torch.tensor([[0.4, 0.4, 0.2]]).double()
    expected = -np.log(softmax(logits.numpy()))[0, :2].mean()
    assert_allclose(cross_entropy(logits, scores, NO_PAIRS).item(), expected)


def test_forward_corrected_follows_its_formula():
    logits, scores, pairs = make_batch()
    predicted = softmax(logits.numpy()) @ CONFUSION.numpy()
    expected = -(scores.numpy() * np.log(predicted)).sum(axis=1).mean()
    loss = forward_corrected(logits, scores, pairs, confusion=CONFUSION)
    assert_allclose(loss.item(), expected)


def test_forward_corrected_needs_a_confusion_matrix():
    with pytest.raises(ValueError, match="confusion=None"):
        forward_corrected(*make_batch())


@pytest.mark.parametrize("multilabel", [False, True])
def test_identity_confusion_is_soft_cross_entropy(multilabel):
    logits, scores, pairs = make_batch()
    confusion = torch.eye(2).repeat(3, 1, 1) if multilabel else torch.eye(3)
    options = {"confusion": confusion.double(), "multilabel": multilabel}
    assert_allclose(
        forward_corrected(logits, scores, pairs, **options),
        soft_cross_entropy(logits, scores, pairs, multilabel=multilabel),
    )


@pytest.mark.parametrize("name", sorted(POINTWISE))
def test_pointwise_multilabel_leaves_out_unknown_entries(name):
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.0]]).double().requires_grad_()
    scores = torch.tensor([[0.9, float("nan")], [0.5, 0.2], [float("nan")] * 2]).double()
    known = ~np.isnan(scores.numpy())
    target = scores.numpy()[known]
    if name == "cross_entropy":
        target = (target >= 0.5).astype(float)
    yes = sigmoid(logits.detach().numpy())
    if name == "forward_corrected":
        confusion = BINARY_CONFUSION.numpy()
        yes = (1 - yes) * confusion[:, 0, 1] + yes * confusion[:, 1, 1]
    yes = yes[known]
    expected = -(target * np.log(yes) + (1 - target) * np.log(1 - yes)).mean()
    loss = LOSSES[name](logits, scores, NO_PAIRS, multilabel=True, confusion=BINARY_CONFUSION)
    loss.backward()
    assert_allclose(loss.item(), expected)
    assert torch.isfinite(logits.grad).all()
    assert_allclose(logits.grad[~torch.from_numpy(known)], 0.0)


@pytest.mark.parametrize("name", sorted(POINTWISE))
def test_pointwise_losses_leave_out_unscored_rows(name):
    logits, scores, pairs = make_batch()
    scores[2] = float("nan")
    logits.requires_grad_()
    loss = call(name, logits, scores, pairs, confusion=CONFUSION)
    kept = torch.arange(8) != 2
    others = call(name, logits[kept], scores[kept], NO_PAIRS, confusion=CONFUSION)
    assert_allclose(loss.item(), others.item())
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert_allclose(logits.grad[2], 0.0)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("name", sorted(POINTWISE))
def test_pointwise_losses_without_scores_give_a_connected_zero(name, multilabel):
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scores = torch.full((4, 2), float("nan"))
    confusion = torch.eye(2).repeat(2, 1, 1) if multilabel else torch.eye(2)
    loss = LOSSES[name](logits, scores, NO_PAIRS, multilabel=multilabel, confusion=confusion)
    loss.backward()
    assert loss.item() == 0.0
    assert_allclose(logits.grad, 0.0)


@pytest.mark.parametrize("name", sorted(POINTWISE))
def test_pointwise_losses_take_a_single_row(name):
    logits, scores, _ = make_batch(n=1)
    assert call(name, logits, scores, NO_PAIRS, confusion=CONFUSION).item() > 0


# -- numerics -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradient(name):
    logits, scores, pairs = make_batch(seed=1)
    options = {"margin_scale": 1.7, "smoothing": 0.2, "confusion": CONFUSION}
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: LOSSES[name](f, scores, pairs, **options), logits)


@pytest.mark.parametrize("name", sorted(POINTWISE))
def test_gradient_multilabel(name):
    logits, scores, _ = make_batch(seed=1, n_classes=2)
    options = {"confusion": BINARY_CONFUSION, "multilabel": True}
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: LOSSES[name](f, scores, NO_PAIRS, **options), logits)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_large_logits_stay_finite(name):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    scores = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    loss = call(name, logits, scores, torch.tensor([[0], [1]]), confusion=torch.eye(2))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
