"""The estimator on real dialogues with real labels of an LLM; skipped where they are absent."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from sklearn_dialpref import DialoguePreferenceClassifier

DATA = Path(__file__).parents[2] / "shared" / "data" / "meld.parquet"
LLM = "llm_gpt4o_melt_sentiment_derived"


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
def test_llm_labels_help_on_meld():
    """On the dev split, with a fifth of the training dialogues: no choice is made here."""
    data = pd.read_parquet(DATA)
    train = data[(data["split"] == "train") & (data["dialogue_id"].map(hash_of) % 5 == 0)]
    dev = data[data["split"] == "dev"]
    dialogues = train["dialogue_id"].unique()[:12]
    y_human = train["sentiment"].astype(object).where(train["dialogue_id"].isin(dialogues), None)
    macro_f1 = {}
    for name, y_llm in {"human": None, "both": train[LLM]}.items():
        clf = DialoguePreferenceClassifier(random_state=0)
        clf.fit(train, y_human, y_llm)
        proba = clf.predict_proba(dev)
        np.testing.assert_allclose(proba.sum(axis=1), 1)
        macro_f1[name] = f1_score(dev["sentiment"], clf.predict(dev), average="macro")
    assert macro_f1["both"] > macro_f1["human"] + 0.03
    assert macro_f1["both"] > 0.5


def hash_of(name: object) -> int:
    """The same number in every process, unlike ``hash``."""
    return sum(str(name).encode())
