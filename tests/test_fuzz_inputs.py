"""Generated inputs are read rightly, or refused in words; `DIALPREF_FUZZ` sets how many."""

import linecache
import os
import traceback
import warnings

import narwhals as nw
import numpy as np
import pytest
import strategies as generated
import students
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sklearn_dialpref import LabelledGroupKFold, votes_to_scores, with_context
from sklearn_dialpref._dialogues.validation import check_dialogues, is_missing
from sklearn_dialpref._labels.targets import check_targets

FEW, MANY = 50, int(os.environ.get("DIALPREF_FUZZ", "2000"))
REFUSED = object()


def read(function, *args, **kwargs):
    """The answer, or REFUSED: by a ValueError or TypeError that was raised on purpose."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **kwargs)
    except (ValueError, TypeError) as error:
        refusal = error
    if not on_purpose(refusal):
        raise AssertionError("an error that nobody wrote") from refusal
    return REFUSED


def on_purpose(error):
    last = traceback.extract_tb(error.__traceback__)[-1]
    raised = linecache.getline(last.filename, last.lineno).strip().startswith("raise")
    ours = raised and f"{os.sep}sklearn_dialpref{os.sep}" in last.filename
    theirs = f"{os.sep}sklearn{os.sep}" in last.filename or "narwhals" in last.filename
    return (ours or theirs) and len(str(error)) > 20


# -- properties -----------------------------------------------------------------------------


def dialogues_are_right(X, precomputed):
    dialogues = read(check_dialogues, X, precomputed=precomputed)
    if dialogues is REFUSED:
        return
    n = len(dialogues)
    assert n == len(X)
    places = set(zip(dialogues.group.tolist(), dialogues.turn.tolist(), strict=True))
    assert len(places) == n and dialogues.turn.min() == 0
    if dialogues.text is None:
        assert np.isfinite(dialogues.features).all()
    else:
        assert all(text.strip() and text.encode() for text in dialogues.text)
    for name in ("context", "speaker", "dialogue_id"):
        for value in [] if getattr(dialogues, name) is None else getattr(dialogues, name):
            assert not isinstance(value, str) or value.encode() is not None
    codes = {}
    for value, code in zip(dialogues.dialogue_id.tolist(), dialogues.group.tolist(), strict=True):
        assert codes.setdefault(value, code) == code
    assert len(set(codes.values())) == len(codes)


def text_is_right(contained):
    entries, X = contained
    dialogues = read(check_dialogues, X, precomputed=False)
    if dialogues is not REFUSED and entries is not None and isinstance(entries[0], str):
        assert dialogues.text.tolist() == entries


def shares(votes, classes):
    given = [vote for vote in votes if not is_missing([vote])[0]]
    counts = np.array([sum(vote == name for vote in given) for name in classes], dtype=float)
    return counts / len(given) if given else np.full(len(classes), np.nan)


def targets_are_right(human, llm, classes):
    (y_human, human), (y_llm, llm) = human, llm
    n = len(y_human or y_llm or [])
    targets = read(check_targets, human, llm, n, classes)
    if targets is REFUSED:
        return
    names = targets.classes.tolist()
    assert len(set(names)) == len(names) >= (1 if targets.multilabel else 2)
    assert targets.has_human.any() or targets.has_score.any()
    if y_human and not targets.multilabel and not isinstance(y_human[0], list):
        for label, code in zip(y_human, targets.human.tolist(), strict=True):
            assert is_missing([label])[0] if code < 0 else names[code] == label
    if targets.scores is not None:
        assert ((targets.scores >= 0) | np.isnan(targets.scores)).all()
        if not targets.multilabel:
            total = targets.scores.sum(axis=1)
            assert np.isnan(targets.scores[np.isnan(total)]).all()
            np.testing.assert_allclose(total[~np.isnan(total)], 1, atol=1e-6)
    if y_llm and not targets.multilabel and not isinstance(y_llm[0], list):
        expected = [shares([vote], names) for vote in y_llm]
        np.testing.assert_array_equal(targets.scores, expected)


def votes_are_right(contained, classes):
    entries, votes = contained
    scores = read(votes_to_scores, votes, classes)
    if scores is REFUSED or entries is None:
        return
    rows = [row if isinstance(row, list | tuple) else [row] for row in entries]
    names = list(classes)
    expected = np.reshape([shares(row, names) for row in rows], (len(rows), len(names)))
    np.testing.assert_allclose(scores, expected)


def context_is_right(X, turns, following, speakers):
    result = read(with_context, X, turns, following=following, speakers=speakers)
    if result is REFUSED:
        return
    contexts = nw.from_native(result)["context"].to_list()
    assert all(isinstance(context, str) for context in contexts)
    if turns == 1 and not following and not speakers:
        dialogues = check_dialogues(X, precomputed=False)
        places = list(zip(dialogues.group, dialogues.turn, strict=True))
        text_at = dict(zip(places, dialogues.text, strict=True))
        assert contexts == [text_at.get((group, turn - 1), "") for group, turn in places]


def folds_are_right(X, y, groups, n_splits):
    splits = read(lambda: list(LabelledGroupKFold(n_splits).split(X, y[1], groups)))
    if splits is REFUSED:
        return
    tests = np.concatenate([test for _, test in splits])
    assert len(set(tests.tolist())) == len(tests)
    for train, test in splits:
        assert not set(train.tolist()) & set(test.tolist())


def fitted_student_is_right(inputs):
    X, human, llm, class_weight = inputs
    clf = students.student(max_epochs=1, class_weight=class_weight)
    if read(clf.fit, X, human[1], llm[1]) is REFUSED:
        return
    probabilities = clf.predict_proba(X)
    assert np.isfinite(probabilities).all()
    if not clf.multilabel_:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert set(clf.predict(X).tolist()) <= set(clf.classes_.tolist())


rows_of_labels = generated.contained(generated.labels)
any_labels = rows_of_labels | generated.contained(generated.vote_tables)
answers = st.one_of(st.just((None, None)), any_labels, generated.contained(generated.score_tables))
some_classes = st.none() | generated.one_type | st.sampled_from([["neg", "pos"], [0, 1], "ab"])


@st.composite
def features_and_labels(draw):
    """Features, and labels for as many rows."""
    n = draw(st.integers(4, 8))
    X = draw(st.lists(st.lists(generated.numbers, min_size=2, max_size=2), min_size=n, max_size=n))
    values = draw(st.sampled_from(generated.label_types))
    rows = st.lists(values | generated.NULLS, min_size=n, max_size=n)
    weights = st.none() | st.dictionaries(values, st.floats(), max_size=2)
    llm = st.just((None, None)) | generated.contained(rows)
    return np.array(X, dtype=float), draw(generated.contained(rows)), draw(llm), draw(weights)


frames, counts = generated.dialogue_frames(), st.integers(0, 2)
PROPERTIES = {
    "dialogues": (dialogues_are_right, frames | generated.features, st.none() | st.booleans()),
    "text": (text_is_right, generated.contained(generated.texts)),
    "targets": (targets_are_right, any_labels, answers, some_classes),
    "human": (targets_are_right, any_labels, st.just((None, None)), some_classes),
    "votes": (votes_are_right, any_labels, generated.one_type),
    "context": (context_is_right, frames, counts, counts, st.booleans()),
    "folds": (
        folds_are_right,
        frames,
        any_labels,
        st.none() | generated.labels,
        st.integers(2, 3),
    ),
    "students": (fitted_student_is_right, features_and_labels()),
}


def run(name, examples, **options):
    property_, *inputs = PROPERTIES[name]
    limits = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[*HealthCheck],
        **options,
    )
    limits(given(*inputs)(property_))()


@pytest.mark.parametrize("name", PROPERTIES)
def test_inputs_are_read_rightly_or_refused(name):
    run(name, FEW // 5 if name == "students" else FEW, derandomize=True)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", PROPERTIES)
def test_many_inputs_are_read_rightly_or_refused(name):
    run(name, MANY, print_blob=True)
