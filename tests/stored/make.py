"""Write what tests/test_stored.py reads: a folder of this format, and what it predicts.

    python tests/stored/make.py

Only for a new format: folders of older ones stay as they are, since they have to stay readable.
"""

import json
from pathlib import Path

import numpy as np

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref._persistence.folder import FORMAT
from sklearn_dialpref.datasets import make_dialogues

HERE = Path(__file__).parent


def data():
    return make_dialogues(30, n_features=4, human_fraction=0.4, random_state=0)


def main():
    chats = data()
    for name, labels in {
        "classes": (chats.y_human, chats.y_llm),
        "labels": (np.eye(3)[np.unique(chats.y_true, return_inverse=True)[1]], None),
    }.items():
        clf = DialoguePreferenceClassifier("precomputed", random_state=0, max_epochs=3)
        clf.fit(chats.X, *labels)
        folder = HERE / f"format_{FORMAT}_{name}"
        clf.save(folder)
        predicted = clf.predict_proba(chats.X.iloc[:20]).round(6).tolist()
        (HERE / f"format_{FORMAT}_{name}.json").write_text(json.dumps(predicted))


if __name__ == "__main__":
    main()
