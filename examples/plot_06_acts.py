"""
Dialogue acts: context and speakers
===================================

The act of an utterance, such as asking or promising, depends on the utterances before it and on
the speaker. Here a student learns nine acts in the bundled support chats, from about 100 human
labels and five LLM votes per utterance, with and without context and speakers.

The votes are **simulated**; the chats were written for this library.

It needs ``pip install 'sklearn-dialpref[offline,plot]' pandas``.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import ConfusionMatrixDisplay, f1_score

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref.datasets import load_support_chats

chats = load_support_chats(target="act")
train, test = ~chats.test, chats.test
print(chats.X[["speaker", "text"]].assign(act=chats.y).head(6).to_string())

# %%
# Agents do not complain. A dict of ``classes`` states this: for agents, LLM votes for that class
# are ignored, and it is never predicted.

acts = list(chats.classes)
classes_by_speaker = {"customer": acts, "agent": [act for act in acts if act != "complaint"]}
students = {
    "utterance alone": {},
    "with the one before": {"context_turns": 1},
    "... and the speaker's acts": {"context_turns": 1, "classes": classes_by_speaker},
}
rows = []
for name, parameters in students.items():
    clf = DialoguePreferenceClassifier(random_state=0, **parameters)
    clf.fit(chats.X[train], chats.y_human[train], chats.y_llm[train])
    predicted = clf.predict(chats.X[test])
    agents = (chats.X["speaker"][test] == "agent").to_numpy()
    rows.append(
        {
            "student": name,
            "accuracy": clf.score(chats.X[test], chats.y[test]),
            "macro-F1": f1_score(chats.y[test], predicted, average="macro"),
            "complaining agents": int(np.sum(predicted[agents] == "complaint")),
        }
    )
print(pd.DataFrame(rows).set_index("student").round(3).to_string())

# %%
# The confusion matrix of the last student:

figure, ax = plt.subplots(figsize=(7, 6))
ConfusionMatrixDisplay.from_predictions(
    chats.y[test], predicted, ax=ax, xticks_rotation=45, cmap="Blues", colorbar=False
)
plt.tight_layout()
