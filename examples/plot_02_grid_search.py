"""
Grid search with whole dialogues
================================

We compare losses and margins by cross-validation in a Pipeline. A dialogue must not be in both the
training and the test fold, not even with its LLM labels, and only human labels can be used for
scoring. :class:`~sklearn_dialpref.LabelledGroupKFold` ensures both.

It needs ``pip install 'sklearn-dialpref[offline,plot]' pandas``.
"""

# %%
# ``with_context`` adds the previous utterance to each row *before* the folds are made, since test
# folds contain only the human-labelled rows.

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    LabelledGroupKFold,
    masked_scorer,
    with_context,
)
from sklearn_dialpref.datasets import load_support_chats

chats = load_support_chats()
X = with_context(chats.X, turns=1)
train, test = ~chats.test, chats.test

# %%
# The frozen encoder encodes each distinct text once, whatever the number of candidates and folds.

pipeline = Pipeline([("clf", DialoguePreferenceClassifier(random_state=0))])
search = GridSearchCV(
    pipeline,
    [
        {"clf__loss": ["noise_reduced"], "clf__margin_scale": [1, 4]},
        {"clf__loss": ["soft_cross_entropy"]},  # has no margin
    ],
    cv=LabelledGroupKFold(3),
    scoring=masked_scorer("f1_macro"),
)
search.fit(X[train], chats.y_human[train], clf__y_llm=chats.y_llm[train])

columns = ["param_clf__loss", "param_clf__margin_scale", "mean_test_score", "std_test_score"]
results = pd.DataFrame(search.cv_results_)[columns]
print(results.round(3).to_string(index=False))
print("Held-out accuracy of the best:", round(search.score(X[test], chats.y[test]), 3))

# %%
# Folds with some 30 human labels give noisy scores: they differ more than the candidates do.

folds = pd.DataFrame(search.cv_results_).filter(regex=r"split\d_test_score").to_numpy()
places = range(len(folds))
_, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
ax.plot(folds, places, "o", color="#9ecae9", markersize=9)
ax.plot(folds.mean(axis=1), places, "D", color="#08519c", markersize=9)
margins = results["param_clf__margin_scale"]
names = results["param_clf__loss"].where(
    margins.isna(), "noise_reduced, margin " + margins.map(str)
)
ax.set_yticks(places, names)
ax.set(
    xlabel="macro-F1 on human labels",
    title="Three folds, and their mean (dark)",
    ylim=(-0.5, 2.5),
)
ax.grid(axis="x", alpha=0.3)
plt.show()
