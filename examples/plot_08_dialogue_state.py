"""
Dialogue states: what has been agreed so far
============================================

A state holds everything that the user has asked for so far. :class:`DialogueStateTracker` learns
the change that each utterance makes, and accumulates the changes. The dialogues are composed of
phrases in this file, and the LLM's states are **simulated**: they miss some changes and invent
others.

It needs ``pip install 'sklearn-dialpref[offline,plot]' pandas``.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    DialogueStateTracker,
    joint_goal_accuracy_score,
    slot_f1_score,
)

# what a user says to set a slot to a value; "dontcare" accepts any value
PHRASES = {
    ("area", "north"): ["In the north, please", "somewhere up north", "the northern part"],
    ("area", "south"): ["In the south", "down in the south of town", "the southern part"],
    ("area", "centre"): ["In the centre", "right downtown", "close to the middle of town"],
    ("area", "dontcare"): ["Anywhere in town is fine", "the area does not matter"],
    ("food", "italian"): ["I would like pasta", "Italian food", "some good pizza"],
    ("food", "indian"): ["I'd love a curry", "Indian food", "something from India"],
    ("food", "thai"): ["Thai, please", "a Thai place", "I want a pad thai"],
    ("price", "cheap"): ["not too expensive", "something cheap", "we have little money"],
    ("price", "expensive"): ["it may be expensive", "a really fine place", "money is no problem"],
    ("price", "dontcare"): ["the price does not matter", "at any price"],
}
QUESTIONS = ["What else?", "Anything more?", "Is there something you would prefer?"]
CORRECTIONS = ["Sorry, I changed my mind:", "No, wait,", "On second thought,"]
SLOTS = {
    "area": ["north", "south", "centre"],
    "food": ["italian", "indian", "thai"],
    "price": ["cheap", "expensive"],
}


def dialogue(number, rng):
    """One dialogue: each slot is set, and one may be changed later."""
    rows, state = [], {}
    for slot in [*rng.permutation(list(SLOTS)), *rng.choice(list(SLOTS), rng.integers(0, 2))]:
        values = [value for name, value in PHRASES if name == slot and value != state.get(slot)]
        value = str(rng.choice(values))
        text = str(rng.choice(PHRASES[slot, value]))
        if slot in state:
            text = f"{rng.choice(CORRECTIONS)} {text}"
        state = {**state, str(slot): value}
        rows += [("user", text, state), ("system", str(rng.choice(QUESTIONS)), None)]
    return [(number, *row) for row in rows]


rng = np.random.default_rng(0)
made = [row for number in range(150) for row in dialogue(number, rng)]
X = pd.DataFrame(made, columns=["dialogue_id", "speaker", "text", "state"])
y = X.pop("state").to_numpy(dtype=object)
for text, state in zip(X["text"][:7], y[:7], strict=True):
    print(f"{text:45} {state or ''}")

# %%
# The LLM reads each dialogue from its beginning; a change that it misses stays missing.


def simulated_llm(y, rng):
    states, state = np.full(len(y), None, dtype=object), {}
    before, last = {}, None
    for row, (number, truth) in enumerate(zip(X["dialogue_id"], y, strict=True)):
        if number != last:
            state, before, last = {}, {}, number
        if truth is None:
            continue
        for slot, value in truth.items():
            if before.get(slot) != value and rng.random() > 0.25:  # it misses a quarter
                state[slot] = value
        if rng.random() < 0.15:
            slot = str(rng.choice(list(SLOTS)))
            state[slot] = str(rng.choice(SLOTS[slot]))
        states[row], before = dict(state), truth
    return states


y_llm = np.stack([simulated_llm(y, rng) for _ in range(3)], axis=1)
train, test = (X["dialogue_id"] < 100).to_numpy(), (X["dialogue_id"] >= 100).to_numpy()
known = test & np.array([state is not None for state in y])
y_human = np.where(X["dialogue_id"] < 10, y, None)

# %%
# Human and LLM states are dicts; the LLM may give several per utterance. The system's utterances
# have no state, so the tracker treats them as utterances that change nothing.

trackers = {}
for name, human, llm in [
    ("human labels", y_human, None),
    ("LLM's states", None, y_llm),
    ("both", y_human, y_llm),
]:
    tracker = DialogueStateTracker(DialoguePreferenceClassifier(random_state=0), slots=SLOTS)
    tracker.fit(
        X[train], human[train] if human is not None else None, None if llm is None else llm[train]
    )
    trackers[name] = tracker.predict(X)
table = pd.DataFrame(
    {
        name: {
            "joint goal accuracy": joint_goal_accuracy_score(y[known], states[known]),
            "slot F1": slot_f1_score(y[known], states[known]),
        }
        for name, states in trackers.items()
    }
).T
print(table.round(3).to_string())

# %%
# A dialogue with the states that the last tracker predicts:

shown = X.index[X["dialogue_id"] == 101]
for row in shown:
    print(f"{X['speaker'][row]:7} {X['text'][row]:45} {trackers['both'][row]}")

# %%
# An error stays in the state, so fewer states are right in all slots in later turns.

turn = (X.groupby("dialogue_id").cumcount() // 2 + 1).to_numpy()
by_turn = pd.DataFrame(
    {
        name: {
            n: joint_goal_accuracy_score(y[known & (turn == n)], states[known & (turn == n)])
            for n in range(1, 5)
        }
        for name, states in trackers.items()
    }
)
ax = by_turn.plot(marker="o", figsize=(7, 3.5), ylim=(0, 1.05))
ax.set(xlabel="turn of the user", ylabel="joint goal accuracy", xticks=range(1, 5))
ax.set_title("Held-out dialogues, simulated LLM")
plt.tight_layout()
