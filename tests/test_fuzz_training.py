"""Generated numbers for losses and small fits: the right form of answer, or a clear error."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from students import student

from sklearn_dialpref.losses import LOSSES

NAN = float("nan")
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
LONG = settings(QUICK, max_examples=2000)

# -- losses ---------------------------------------------------------------------------------


@st.composite
def loss_inputs(draw):
    n, n_classes = draw(st.integers(0, 6)), draw(st.integers(2, 4))
    logits = draw(arrays(np.float32, (n, n_classes), elements=st.floats(-1e4, 1e4, width=32)))
    scores = draw(arrays(np.float32, (n, n_classes), elements=st.floats(0, 1, width=32)))
    scores[draw(arrays(np.bool_, n))] = NAN
    pairs = draw(arrays(np.int64, (2, draw(st.integers(0, 8)) if n else 0), elements=st.just(0)))
    if n:
        pairs = draw(arrays(np.int64, pairs.shape, elements=st.integers(0, n - 1)))
    multilabel = draw(st.booleans())
    shape = (n_classes, 2, 2) if multilabel else (n_classes, n_classes)
    confusion = draw(arrays(np.float32, shape, elements=st.floats(0, 1, width=32))) + 1e-3
    options = {
        "margin_scale": draw(st.floats(0, 1e6)),
        "min_gap": draw(st.floats(0, 1, exclude_max=True)),
        "smoothing": draw(st.floats(0, 0.49)),
        "confusion": torch.from_numpy(confusion / confusion.sum(axis=-1, keepdims=True)),
        "multilabel": multilabel,
    }
    return torch.from_numpy(logits), torch.from_numpy(scores), torch.from_numpy(pairs), options


@QUICK
@given(loss_inputs())
def test_losses_and_their_gradients_are_finite(inputs):
    logits, scores, pairs, options = inputs
    for name, loss in LOSSES.items():
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, scores, pairs, **options)
        value.backward()
        assert value.shape == () and value.isfinite(), name
        assert leaf.grad.isfinite().all(), name
        if name != "robust":
            assert value >= -1e-6, name


# -- fits -----------------------------------------------------------------------------------

ANY = st.floats(allow_nan=False, allow_infinity=False)
SIZES = st.sampled_from([1e-300, 1e-45, 1e-38, 1e-12, 1e-6, 1.0, 1e6, 1e18, 1e30, 1e38, 1e300])


@st.composite
def features(draw, n, n_features):
    """Of one size or of several, or any numbers at all."""
    unit = arrays(np.float64, (n, n_features), elements=st.floats(-3, 3))
    kind = draw(st.sampled_from(["one size", "sizes", "constant", "any"]))
    if kind == "any":
        return draw(arrays(np.float64, (n, n_features), elements=ANY))
    if kind == "constant":
        return np.full((n, n_features), draw(ANY))
    size = draw(SIZES) if kind == "one size" else draw(arrays(float, n_features, elements=SIZES))
    return draw(unit) * size


@st.composite
def labels(draw, n):
    """Human labels and those of an LLM, of one class or of several labels."""
    kind = draw(st.sampled_from(["classes", "scores", "multilabel"]))
    if kind == "multilabel":
        y = arrays(np.float64, (n, 2), elements=st.sampled_from([0.0, 1.0, NAN]))
        return draw(y), draw(st.one_of(st.none(), y))
    y = st.lists(st.sampled_from(["a", "b", None]), min_size=n, max_size=n)
    if kind == "classes":
        return draw(y), draw(st.one_of(st.none(), y))
    share = draw(arrays(np.float64, n, elements=st.floats(0, 1)))
    return draw(y), pd.DataFrame({"a": share, "b": 1 - share})


def now_and_then(usual, *others):
    return st.one_of(st.just(usual), st.just(usual), st.sampled_from(others))


PARAMETERS = st.fixed_dictionaries(
    {
        "loss": st.sampled_from(list(LOSSES)),
        "schedule": st.sampled_from(["pretrain_finetune", "joint", "distill_then_joint"]),
        "learning_rate": now_and_then("auto", 1e-300, 1e-3, 1.0, 1e4, 1e10, 1e30, 1e300),
        "class_weight": now_and_then(
            None, "balanced", {"a": -1}, {"b": NAN}, {"a": 1e9}, {0: 1e9}, {"a": 0, "b": 0}
        ),
        "margin_scale": now_and_then(1.0, 0.0, 1e10, 1e30, 1e300),
        "loss_weight": now_and_then(1.0, 0.0, 1e10, 1e30, 1e300),
        "pair_weight": now_and_then(0.0, 1.0, 1e10, 1e30, 1e300),
        "early_stopping": now_and_then(False, True),
        "batch_size": now_and_then("auto", 1),
        "max_epochs": st.just(1),
        "classes": now_and_then(["a", "b"], None),
    }
)


@st.composite
def problems(draw):
    n, n_features = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    X = pd.DataFrame(draw(features(n, n_features)), columns=list("uvw")[:n_features])
    if draw(st.booleans()):
        X["dialogue_id"] = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    asked = X.copy()
    asked[list("uvw")[:n_features]] = draw(features(n, n_features))
    return X, *draw(labels(n)), draw(PARAMETERS), asked


def check_fit_and_answers(problem):
    X, y_human, y_llm, parameters, asked = problem
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            clf = student(**parameters).fit(X, y_human, y_llm)
        except (ValueError, TypeError):
            return
        for rows in (X, asked):
            try:
                proba = clf.predict_proba(rows)
            except ValueError:
                continue
            assert proba.shape == (len(rows), 2)
            assert ((proba >= 0) & (proba <= 1)).all()
            if not clf.multilabel_:
                np.testing.assert_allclose(proba.sum(axis=1), 1)
            assert set(np.unique(clf.predict(rows))) <= {"a", "b", 0, 1}


@QUICK
@given(problems())
def test_small_fits_answer_in_numbers_or_say_why_not(problem):
    check_fit_and_answers(problem)


@pytest.mark.fuzz
@settings(LONG, derandomize=False)
@given(problems())
def test_many_small_fits_answer_in_numbers_or_say_why_not(problem):
    check_fit_and_answers(problem)
