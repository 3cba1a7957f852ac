"""A few mutants of saved folders; ``tests/mutate.py`` makes thousands."""

from collections import Counter

import pytest
from mutate import DIALOGUES, FEATURES, run
from students import student

from sklearn_dialpref import export_onnx


@pytest.fixture(scope="module")
def folders(tiny_encoder, tmp_path_factory):
    scratch, labels = tmp_path_factory.mktemp("folders"), ["no", "yes", "maybe"] * 2
    student(max_epochs=1).fit(FEATURES, labels).save(scratch / "classifier")
    clf = student(tiny_encoder, context_turns=1, max_epochs=1).fit(DIALOGUES, labels)
    clf.save(scratch / "text")
    export_onnx(clf, scratch / "onnx", X_check=DIALOGUES)
    return scratch


@pytest.mark.parametrize("kind", ["classifier", "text", "onnx"])
def test_mutants_are_refused_or_answer_as_before(folders, kind):
    outcomes = list(run(kind, folders / kind, 40, seed=0, isolated=False))
    assert [outcome for outcome in outcomes if outcome[1] == "wrong"] == []
    counts = Counter(result for signed, result, *_ in outcomes if not signed)
    assert counts["refused"] >= 30 and counts["other"] == 0
