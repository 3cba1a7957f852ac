"""
Judge the teacher before you train on it
========================================

Some utterances have both a human label and LLM votes. They show whether the teacher is biased
towards a class or within whole dialogues, whether its scores are calibrated, and whether pairs
inside a dialogue are cleaner than pairs across dialogues. Training a student on fewer labels shows
how much the last labels gained.

The votes of the bundled chats are **simulated** with a known bias, so the report can be checked
against it: the teacher avoids "neutral", and favours one class through a dialogue.

It needs ``pip install 'sklearn-dialpref[offline,plot]' pandas``.
"""

# %%
# One call gives a text with figures and advice. Intervals are over dialogues.

import matplotlib.pyplot as plt

from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    LabelBudgetDisplay,
    PairMarginDisplay,
    ReliabilityDisplay,
    TeacherConfusionDisplay,
    label_budget_curve,
    teacher_report,
    with_context,
)
from sklearn_dialpref.datasets import load_support_chats

chats = load_support_chats(n_human=200)
train = ~chats.test
X, y_human, y_llm = chats.X[train], chats.y_human[train], chats.y_llm[train]

report = teacher_report(X, y_human, y_llm, random_state=0)
print(report)

# %%
# The figures are attributes; ``frame`` returns those of each class as a table.

report.frame().round(2)

# %%
# To estimate the gain from more labels, we remove some. The gain depends on the student, not only
# on the teacher. The encoder is frozen, so each text is encoded once for all fits, and the number
# of epochs is small to keep the example short.

student = DialoguePreferenceClassifier(schedule="joint", max_epochs=8, random_state=0)
curve = label_budget_curve(
    student,
    with_context(X, turns=1),
    y_human,
    y_llm,
    budgets=[0.25, 0.5, 1],
    cv=3,
    scoring="f1_macro",
    random_state=0,
)
print(curve.frame().round(3).to_string(index=False))

# %%
# With the curve, the report's advice ends with the conclusions from it.

report = teacher_report(X, y_human, y_llm, budget_curve=curve, random_state=0)
print("\n".join(report.advice[-2:]))

# %%
# The plots show which classes the teacher confuses, whether a score of 0.8 is right in 8 of 10
# cases, whether pairs with a larger gap are ordered more reliably, and the curve.

_, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
TeacherConfusionDisplay.from_predictions(y_human, y_llm, normalize="true").plot(
    ax=axes[0, 0], colorbar=False, values_format=".2f"
)
ReliabilityDisplay.from_predictions(y_human, y_llm).plot(ax=axes[0, 1])
PairMarginDisplay.from_predictions(X, y_human, y_llm, n_bins=5, random_state=0).plot(ax=axes[1, 0])
LabelBudgetDisplay(curve).plot(ax=axes[1, 1])
plt.show()
