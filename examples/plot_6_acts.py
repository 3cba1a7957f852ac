"""
Dialogue acts: context and speakers
===================================

What an utterance does, such as asking or promising, depends on what was said before it and on who
says it. Here a student of the bundled support chats learns nine acts from about 100 human labels
and five LLM votes per utterance, with and without these two.

The votes are **simulated**; the chats were written for this library.
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
# Agents do not complain. A dict of ``classes`` says so: for them that class is neither learned
# from the LLM, whose votes for it are left out, nor predicted.

acts = list(chats.classes)
of_speakers = {"customer": acts, "agent": [act for act in acts if act != "complaint"]}
students = {
    "utterance alone": {},
    "with the one before": {"context_turns": 1},
    "... and the speaker's acts": {"context_turns": 1, "classes": of_speakers},
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
# What the last one mistakes for what:

figure, ax = plt.subplots(figsize=(7, 6))
ConfusionMatrixDisplay.from_predictions(
    chats.y[test], predicted, ax=ax, xticks_rotation=45, cmap="Blues", colorbar=False
)
plt.tight_layout()
plt.savefig("acts.png", dpi=120)
