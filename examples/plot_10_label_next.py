"""
Choose what to label next
=========================

People label a few utterances at a time. Which ones should they be? This example starts without any
human label, asks four times for the 25 utterances to label next, and compares the result with
100 random ones.

The chats are bundled with the package, and their labels stand in for the people. Their LLM votes
are **simulated**. On real dialogues the gain over random utterances is small, once the student has
learned from an LLM: see ``benchmarks/results/suggestions.md``.

It needs ``pip install 'sklearn-dialpref[offline,plot]' pandas``.
"""

# %%
# A first classifier learns from the LLM's votes alone.

import tempfile
import warnings

import matplotlib.pyplot as plt
import numpy as np

from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    from_annotations,
    show_dialogue,
    suggest_annotations,
    to_annotation_tasks,
)
from sklearn_dialpref.datasets import load_support_chats

chats = load_support_chats(target="act", n_human=None)
train = ~chats.test
X, answers, y_llm = chats.X[train], chats.y[train].to_numpy(), chats.y_llm[train]
classes = sorted(set(answers))
clf = DialoguePreferenceClassifier(classes=classes, random_state=0).fit(X, None, y_llm)

# %%
# It is asked which utterances to label, and says why. One in ten is random: estimate accuracy
# from those alone, as the others are harder than usual.

suggestions = suggest_annotations(clf, X, y_llm=y_llm, n=25, random_state=0)
suggestions.frame().head(10)

# %%
# A dialogue shows them in their context.

busiest = X["dialogue_id"].iloc[suggestions.rows].mode()[0]
show_dialogue(
    X, busiest, y_llm=y_llm, proba=clf.predict_proba(X), classes=classes, suggestions=suggestions
)

# %%
# People label in a spreadsheet or in Label Studio. Here a loop fills in the column ``label``.

file = tempfile.mkdtemp() + "/tasks.csv"
tasks = to_annotation_tasks(X, file, classes=classes, suggestions=suggestions)
for task, row in zip(tasks.tasks, tasks.rows, strict=True):
    task["label"] = answers[row]
y_human = from_annotations(tasks, X, classes=classes)
print(f"{sum(label is not None for label in y_human)} utterances are labelled")

# %%
# Fit, ask for the next ones, label them, and so on. Each round brings all labels so far.


def score(y_human):
    with warnings.catch_warnings():  # of classes that have no human label yet
        warnings.simplefilter("ignore", UserWarning)
        clf.fit(X, y_human, y_llm)
    return clf.score(chats.X[chats.test], chats.y[chats.test])


def random_labels(n_labels, seed):
    rows = np.random.default_rng(seed).permutation(len(X))[:n_labels]
    labels = np.full(len(X), None, dtype=object)
    labels[rows] = answers[rows]
    return labels


budgets = [25, 50, 75, 100]
chosen = [score(y_human)]
for _ in budgets[1:]:
    rows = suggest_annotations(clf, X, y_human, y_llm, n=25, random_state=0).rows
    y_human[rows] = answers[rows]
    chosen.append(score(y_human))
random = [score(random_labels(100, seed)) for seed in range(3)]
everything = score(answers)

# %%
# All labels are the limit of what people can add here. Draws of random labels differ by several
# points on a corpus of this size, and so would suggestions of another model: one curve
# does not tell whether the choice was a good one.

_, ax = plt.subplots(figsize=(6, 4))
ax.plot(budgets, chosen, "o-", label="suggested")
ax.plot([100] * 3, random, "s", label="100 random ones, three draws")
ax.axhline(everything, color="grey", lw=1, label=f"all {len(X)} labels")
ax.set(xlabel="human labels", ylabel="accuracy on held-out chats", xticks=budgets)
ax.legend()
plt.tight_layout()
