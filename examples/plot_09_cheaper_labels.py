"""
The same labels for fewer tokens
================================

One call for each utterance and each prompt sends the labelling guide, and the turns before, again
and again. This example compares that with calls about whole dialogues, with asking until the
answers agree, and with both, by the tokens that they take and the labels that come of it.

A small function replaces the model, so that the example runs anywhere and costs nothing: **it only
looks for a few words**. Its answers show the mechanics. How often a real model is right about a
whole dialogue is what human labels must tell, on your data.

It needs ``pip install 'sklearn-dialpref[llm,offline,plot]' pandas``.
"""

import re
import zlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from sklearn_dialpref import LLMAnnotator
from sklearn_dialpref.annotation import Completion
from sklearn_dialpref.annotation.billing import count_tokens
from sklearn_dialpref.datasets import load_support_chats

chats = load_support_chats()
X, y = chats.X, chats.y

# %%
# The stand-in reads a prompt as a model does: it finds the labels with their codes, and answers
# for one utterance with a code, for numbered turns with a line for each.

WORDS = {
    "positive": r"thank|great|perfect|love|glad|happy|welcome|nice|good|pleasure|excellent|!",
    "negative": r"sorry|n't|broken|wrong|late|never|still|cancel|again|twice|waiting|already|why"
    r"|annoy|useless|worried|third|charged|missing|stuck|ridicul|disappoint|unfortunately",
}
UTTERANCE = re.compile(r"(?:label|utterance|says): (\{.*\})$", re.M | re.I)
TURN = re.compile(r'^(\d+): (.*")}?$', re.M)
LABEL = re.compile(r"^(\w): (negative|neutral|positive)", re.M)


def code_for(text, codes, noise):
    strength = {"neutral": 1.2}
    for label, words in WORDS.items():
        strength[label] = 2.0 * len(re.findall(words, text, re.I))
    return codes[max(codes, key=lambda label: strength[label] + noise.normal(0, 0.5))]


def stand_in(messages):
    content = messages[-1]["content"]
    codes = {label: code for code, label in LABEL.findall(content)}
    noise = np.random.default_rng(zlib.crc32(content.encode()))  # each prompt errs otherwise
    if alone := UTTERANCE.search(content):
        answer = code_for(alone.group(1), codes, noise)
    else:
        lines = [(number, code_for(turn, codes, noise)) for number, turn in TURN.findall(content)]
        answer = "\n".join(f"{number}: {code}" for number, code in lines)
    return Completion([answer], None, "stop", count_tokens(messages), 1 + 4 * answer.count(":"))


# %%
# Four ways to ask. The prompts of the bank are made for each way.

ways = {
    "one by one": {},
    "until sure": {"stop_when_sure": 2.5},
    "whole dialogues": {"utterances_per_call": "dialogue"},
    "both": {"utterances_per_call": "dialogue", "stop_when_sure": 2.5},
}
rows = {}
for name, options in ways.items():
    annotator = LLMAnnotator(
        ["negative", "neutral", "positive"],
        stand_in,
        task="the sentiment",
        definitions={"neutral": "no feeling shows"},
        prices=(0.40, 1.60),
        **options,
    )
    estimate = annotator.fit(X).estimate_cost(X)  # asks nothing
    labels = annotator.predict(X)
    usage = annotator.usage_
    rows[name] = {
        "estimated cost": estimate.cost,
        "calls": usage["calls"],
        "tokens": usage["tokens_in"] + usage["tokens_out"],
        "cost": usage["cost"],
        "accuracy": (labels == y).mean(),
        "macro-F1": f1_score(y, labels, average="macro"),
    }
table = pd.DataFrame(rows).T
print(table.round(3).to_string())

# %%
# The estimates were made before anything was asked, as if no member were left out. The record of
# an annotation says how it was asked.

print(annotator.card().split("## Prompts")[0])

# %%
# Whole dialogues save tokens, asking until sure saves calls about single utterances. Together they
# save less than their product, as a dialogue is sent while one of its turns is open.

fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
share = table["tokens"] / table["tokens"].iloc[0]
bars = ax.barh(table.index, share, color="#4c78a8")
ax.bar_label(bars, [f" {value:.2f}" for value in share])
ax.set(xlabel="tokens, as a share of asking one by one", xlim=(0, 1.12))
ax.invert_yaxis()
plt.show()
