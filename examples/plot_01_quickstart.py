"""
Quickstart: human labels, LLM labels, and both
==============================================

A student learns the sentiment of support-chat utterances from about 100 human labels and five
LLM votes per utterance, and is scored on held-out dialogues.

The chats are bundled and were written for this library; the votes are **simulated**. The example
shows how to use the library, and is not evidence of its quality: the README has figures on real
labels.

It needs ``pip install 'sklearn-dialpref[offline,plot]' pandas``.
"""

# %%
# The encoder is frozen, so each fit takes seconds. ``trainable_layers=None`` would fine-tune it.

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.metrics import f1_score

from sklearn_dialpref import DialoguePreferenceClassifier
from sklearn_dialpref.datasets import load_support_chats

chats = load_support_chats()
train, test = ~chats.test, chats.test
print(chats.X[train].assign(human=chats.y_human[train]).head())

# %%
# We train three students: on the human labels alone, on the votes alone, and on both.

labels = {
    "human labels only": (chats.y_human[train], None),
    "LLM votes only": (None, chats.y_llm[train]),
    "both (full method)": (chats.y_human[train], chats.y_llm[train]),
}
rows = []
for name, (y_human, y_llm) in labels.items():
    clf = DialoguePreferenceClassifier(context_turns=1, random_state=0)
    clf.fit(chats.X[train], y_human, y_llm)
    predicted = clf.predict(chats.X[test])
    rows.append(
        {
            "student learned from": name,
            "accuracy": clf.score(chats.X[test], chats.y[test]),
            "macro-F1": f1_score(chats.y[test], predicted, average="macro"),
        }
    )
results = pd.DataFrame(rows).set_index("student learned from")
print(results.round(3).to_string())

# %%
# The first fit also encodes the texts; the others reuse the embeddings in memory.

ax = results[["accuracy", "macro-F1"]].plot.barh(figsize=(7, 3), xlim=(0, 1))
ax.invert_yaxis()
ax.set(ylabel="", title="Held-out dialogues, simulated LLM votes")
plt.tight_layout()
plt.savefig("quickstart.png", dpi=120)
