"""
Ask the LLM only when it pays
=============================

The student answers in a millisecond, the LLM is slow and each answer costs. An
`EscalatingClassifier` answers by the student and asks the LLM about the utterances where that is
expected to gain the most. It learns from human labels whether asking gains anything.

The chats are bundled with the package, and the LLM is **simulated**: its errors do not depend on
the text, so that it complements the student better than a real one. On real dialogues the figures
are in ``benchmarks/results/escalation.md``.

It needs ``pip install 'sklearn-dialpref[offline,plot]' pandas``.
"""

# %%
# The teacher is a fitted `LLMAnnotator`, or any other fitted classifier. This one looks up the
# votes of the simulated LLM.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from sklearn_dialpref import (
    CoverageAccuracyDisplay,
    DialoguePreferenceClassifier,
    EscalatingClassifier,
    votes_to_scores,
)
from sklearn_dialpref.datasets import load_support_chats, simulate_votes


class RecordedLLM(ClassifierMixin, BaseEstimator):
    """Answers that are known already."""

    def fit(self, X, votes):
        self.classes_ = np.unique(votes)
        scores = votes_to_scores(votes, self.classes_)
        self.answers_ = dict(zip(self._keys(X), scores, strict=True))
        return self

    def predict_proba(self, X):
        return np.array([self.answers_[key] for key in self._keys(X)])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _keys(self, X):
        return list(zip(X["dialogue_id"], X["turn"], strict=True))


chats = load_support_chats(n_human=300)
votes = simulate_votes(chats.y, chats.X["dialogue_id"], signal=1.7, random_state=0)
llm = RecordedLLM().fit(chats.X, votes)

# %%
# The student learns from the labels of people. At most 20 % of the utterances may be asked about.

train, test = ~chats.test, chats.test
student = DialoguePreferenceClassifier(random_state=0)
clf = EscalatingClassifier(student, llm, max_share=0.2)
clf.fit(chats.X[train], chats.y_human[train])

X_new, y_new = chats.X[test], chats.y[test]
print(f"asked about {clf.expected_cost(X_new).share:.0%} of the held-out utterances")
for name, model in (("student", clf.student_), ("LLM", llm), ("both", clf)):
    print(f"accuracy of {name:8} {model.score(X_new, y_new):.3f}")

# %%
# The curve shows what other shares would have given.

CoverageAccuracyDisplay.from_estimator(clf, X_new, y_new).plot()
plt.show()

# %%
# ``target_accuracy`` asks as little as will do for an accuracy that holds with 95 % confidence.
# Where the human labels are too few to show that it does, a UserWarning says so. ``promise_`` has
# the figures.

careful = EscalatingClassifier(student, llm, target_accuracy=0.7)
careful.fit(chats.X[train], chats.y_human[train])
print(careful.promise_)
print(f"asks about {careful.expected_cost(X_new).share:.0%}")
print(f"accuracy on held-out chats {careful.score(X_new, y_new):.3f}")

# %%
# Without a teacher the classifier abstains: ``predict`` gives None where it is not sure, for a
# person to label. The accuracy is that of the answers which it gives.

alone = EscalatingClassifier(student, target_accuracy=0.8).fit(
    chats.X[train], chats.y_human[train]
)
answered = ~alone.escalates(X_new)
print(f"answers {answered.mean():.0%} of the utterances")
print(f"accuracy of these answers {alone.score(X_new, y_new):.3f}")
