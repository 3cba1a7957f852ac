"""
Grid search with whole dialogues
================================

Losses and margins are compared by cross-validation in a Pipeline. A dialogue must not be in
training and test at once, not even by its LLM labels, and only human labels can test:
:class:`~sklearn_dialpref.LabelledGroupKFold` sees to both.
"""

# %%
# ``with_context`` puts the previous utterance beside each row *before* the folds are made, as
# test folds hold the human-labelled rows only.

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
# The frozen encoder reads each distinct text once, whatever the number of candidates and folds.

pipeline = Pipeline([("clf", DialoguePreferenceClassifier(random_state=0))])
search = GridSearchCV(
    pipeline,
    [
        {"clf__loss": ["noise_reduced"], "clf__margin_scale": [1, 4]},
        {"clf__loss": ["soft_cross_entropy"]},  # which has no margin
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
# Folds of 30 human labels say little: the bars are one standard deviation over folds.

margin = results["param_clf__margin_scale"].map("{:g}".format).replace("nan", "–")
names = results["param_clf__loss"] + ", γ=" + margin
plt.figure(figsize=(7, 3))
plt.barh(names, results["mean_test_score"], xerr=results["std_test_score"])
plt.xlabel("macro-F1 on human labels, 3 folds")
plt.tight_layout()
