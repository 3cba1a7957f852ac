"""
Intents: what the customer wants now
====================================

Only the customers' utterances have an intent, which stays the same until they want something else.
The agent's utterances are context. The dialogues are composed of phrases in this file, so they are
simple, and the LLM votes are **simulated**.

It needs ``pip install 'sklearn-dialpref[offline,plot]' pandas``.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from sklearn_dialpref import DialoguePreferenceClassifier, LabelledGroupKFold
from sklearn_dialpref.datasets import simulate_votes

# for each intent: the customer's openings, and the agent's questions
PHRASES = {
    "balance": (
        ["How much money do I have?", "What's in my account?", "Could you check my balance?"],
        ["The savings or the checking account?", "Which account shall I look at?"],
    ),
    "transfer": (
        ["I want to send money to a friend", "Please move 200 dollars", "I have to pay my rent"],
        ["To whom, and how much?", "From which account?"],
    ),
    "card_lost": (
        ["My card is gone", "Somebody stole my wallet", "I can't find my credit card"],
        ["When did you last use it?", "Shall I block it?"],
    ),
    "branch": (
        [
            "Where is your nearest branch?",
            "When do you open tomorrow?",
            "Is there a bank downtown?",
        ],
        ["In which town?", "On a weekday?"],
    ),
    "loan": (
        ["I'd like to borrow money for a car", "What's the rate of a mortgage?", "I need a loan"],
        ["Over how many years?", "How much would you need?"],
    ),
    "complaint": (
        ["I was charged twice", "This fee is wrong", "Nobody called me back, again"],
        ["I am sorry. Which charge is it?", "When was that?"],
    ),
}
# the answers are the same, whatever the intent
ANSWERS = ["Yes, please", "I am not sure", "On Monday", "The first one", "About 100", "No, sorry"]
CHANGES = ["Oh, and one more thing.", "By the way.", "Right. Another question."]


def dialogue(number, rng):
    """One dialogue: two or three intents, a few turns each."""
    rows = []
    for intent in rng.choice(list(PHRASES), size=rng.integers(2, 4), replace=False):
        begin, ask = PHRASES[intent]
        opening = f"{rng.choice(CHANGES)} {rng.choice(begin)}" if rows else rng.choice(begin)
        rows.append(("customer", opening, intent))
        for _ in range(rng.integers(1, 3)):
            rows.append(("agent", rng.choice(ask), None))
            rows.append(("customer", rng.choice(ANSWERS), intent))
    return [(f"call_{number:03d}", *row) for row in rows]


rng = np.random.default_rng(0)
calls = [row for number in range(120) for row in dialogue(number, rng)]
X = pd.DataFrame(calls, columns=["dialogue_id", "speaker", "text", "intent"])
y = X.pop("intent").to_numpy(dtype=object)
print(X.assign(intent=y).head(7).to_string())

# %%
# A few calls have human labels, and all customers' utterances have three LLM votes.

number = X["dialogue_id"].factorize()[0]
customer = (X["speaker"] == "customer").to_numpy()
train, test = number < 80, (number >= 80) & customer
y_human = np.where(number < 6, y, None)
y_llm = np.full((len(X), 3), None, dtype=object)
y_llm[customer] = simulate_votes(
    y[customer], number[customer], n_votes=3, signal=2.5, class_bias=0.8, noise=1.0, random_state=0
)
print(f"{sum(label is not None for label in y_human)} human labels")

# %%
# An answer such as "On Monday" does not show its intent, but the utterances before it do. The
# students therefore predict on whole calls, and the test utterances are selected afterwards.

labels = {"human labels": (y_human, None), "LLM votes": (None, y_llm), "both": (y_human, y_llm)}
scores = {}
for turns in (0, 1, 2):
    for name, (human, llm) in labels.items():
        clf = DialoguePreferenceClassifier(context_turns=turns, random_state=0)
        clf.fit(
            X[train],
            human[train] if human is not None else None,
            None if llm is None else llm[train],
        )
        predicted = clf.predict(X)[test]
        scores[name, turns] = f1_score(y[test], predicted, average="macro")
table = pd.Series(scores).unstack().rename_axis(index="learned from", columns="turns of context")
print(table.loc[list(labels)].round(3).to_string())

# %%
# :class:`LabelledGroupKFold` keeps calls whole and tests on the human-labelled utterances.

folds = LabelledGroupKFold(3)
print([len(test_rows) for _, test_rows in folds.split(X[train], y_human[train])])

ax = table.loc[list(labels)].plot.barh(figsize=(7, 3.2), xlim=(0, 1), width=0.75)
ax.invert_yaxis()
ax.set(xlabel="macro-F1 on held-out calls", ylabel="", title="Simulated calls and votes")
ax.legend(title="turns of context", loc="center left", bbox_to_anchor=(1, 0.5))
plt.tight_layout()
