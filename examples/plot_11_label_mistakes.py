"""
Find the mistakes in your labels
================================

People make slips, and the LLM is wrong more often. `suspect_labels` sorts all labels by the
probability that they are wrong: it asks a student that has not seen the dialogue, and for a human
label also the LLM. In this example we make 20 slips on purpose and look for them.

The chats are bundled with the package; their LLM votes are **simulated**. On real dialogues the
figures are in ``benchmarks/results/suspects.md``.

It needs ``pip install 'sklearn-dialpref[offline,plot]' pandas``.
"""

# %%
# 20 of 200 labels are changed to another class.

import matplotlib.pyplot as plt
import numpy as np

from sklearn_dialpref import DialoguePreferenceClassifier, show_dialogue, suspect_labels
from sklearn_dialpref.datasets import load_support_chats

chats = load_support_chats(n_human=200)
X, y_llm = chats.X[~chats.test], chats.y_llm[~chats.test]
y_human = chats.y_human[~chats.test].to_numpy(dtype=object, copy=True)

rng = np.random.default_rng(0)
labelled = np.flatnonzero([isinstance(label, str) for label in y_human])
slips = rng.choice(labelled, 20, replace=False)
classes = sorted(set(y_human[labelled]))
for row in slips:
    y_human[row] = rng.choice([name for name in classes if name != y_human[row]])

# %%
# Five students are trained, each on four fifths of the dialogues, and predict the other fifth.

clf = DialoguePreferenceClassifier(random_state=0)
suspects = suspect_labels(clf, X, y_human, y_llm)
human = suspects[suspects.source == "human"]
human.frame().head(10)

# %%
# A person checks them from the top. How many labels have to be looked at to find the slips?

found = np.cumsum(np.isin(human.row, slips))
print(f"{found[19]} of the first 20 and {found[39]} of the first 40 are slips of ours")

_, ax = plt.subplots(figsize=(6, 4))
looked_at = np.arange(1, len(human) + 1)
ax.plot(looked_at, found, label="in the order of suspect_labels")
ax.plot(looked_at, looked_at * len(slips) / len(human), ls="--", label="at random")
ax.set(xlabel="human labels looked at", ylabel="slips found", xlim=(0, len(human)))
ax.legend()
plt.tight_layout()

# %%
# The dialogue tells whether it was a slip. Labels that are probably wrong are flagged.

worst = X["dialogue_id"].iloc[human.row[0]]
show_dialogue(X, worst, y_human=y_human, y_llm=y_llm, suspects=suspects)

# %%
# The LLM's labels are judged too, here against the right ones, which only a simulation has.

llm = suspects[suspects.source == "llm"]
right = chats.y[~chats.test].to_numpy()
for name, part in (("first", llm[:100]), ("last", llm[-100:])):
    wrong = np.mean(right[part.row] != part.label)
    print(
        f"of the {name} 100 labels of the LLM {wrong:.0%} are wrong; "
        f"{part.probability_wrong.mean():.0%} are expected to be"
    )
