"""
Labels from a language model
============================

This example goes from raw chats to LLM labels to a fitted student. An annotator asks a language
model about each utterance with several prompts, estimates the cost first, and caches every answer.

By default, a small function in this file replaces the model, so that the example runs anywhere
and costs nothing: **it only looks for a few words and is not a language model**. To use a real
model, set the environment variable ``DIALPREF_MODEL`` (and ``DIALPREF_BASE_URL`` for an endpoint
other than OpenAI's); the key is read from ``OPENAI_API_KEY``.

It needs ``pip install 'sklearn-dialpref[llm,offline,plot]' pandas``.
"""

import os
import re
import warnings
import zlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from sklearn_dialpref import DialoguePreferenceClassifier, LLMAnnotator
from sklearn_dialpref.annotation import Completion, PromptBank
from sklearn_dialpref.datasets import load_support_chats

chats = load_support_chats()
train, test = ~chats.test, chats.test
X, y_human = chats.X[train], chats.y_human[train]

# %%
# The stand-in receives the same messages as a model, and returns the same kind of answer: a code,
# and the log-probabilities of the codes.

WORDS = {
    "positive": r"thank|great|perfect|love|glad|happy|welcome|nice|good|pleasure|excellent|!",
    "negative": r"sorry|n't|broken|wrong|late|never|still|cancel|again|twice|waiting|already|why"
    r"|annoy|useless|worried|third|charged|missing|stuck|ridicul|disappoint|unfortunately",
}


def stand_in(messages):
    content = messages[-1]["content"]
    codes = {label: code for code, label in re.findall(r"^(\w): (\w+)", content, re.M)}
    asked = re.search(r"(?:label|utterance|says): (\{.*\})$", content, re.M | re.I).group(1)
    logits = {"neutral": 1.2}
    for label, words in WORDS.items():
        logits[label] = 2.0 * len(re.findall(words, asked, re.I))
    # each prompt shifts the answer a little, as the wording does with real models
    tilt = np.random.default_rng(zlib.crc32(content.encode())).normal(0, 0.4, 3)
    values = np.array([logits[label] for label in codes]) + tilt
    logprobs = values - np.log(np.exp(values).sum())
    best = list(codes.values())[int(logprobs.argmax())]
    tokens = len(content) // 4
    return Completion([best], dict(zip(codes.values(), logprobs, strict=True)), "stop", tokens, 1)


model = os.environ.get("DIALPREF_MODEL", stand_in)

# %%
# Eight prompts
# -------------
# The prompts differ in wording, role, order and codes of the labels, and in the number of turns
# shown around the utterance.

classes = ["negative", "neutral", "positive"]
definitions = {
    "negative": "the speaker is annoyed, worried or disappointed",
    "neutral": "no feeling shows",
    "positive": "the speaker is pleased, grateful or friendly",
}
bank = PromptBank.default("the sentiment", classes, definitions)
print(bank)
print(bank[0].render("Where is my parcel?", speaker="customer")[-1]["content"])

# %%
# What it will cost
# -----------------
# ``fit`` asks about the human-labelled utterances, to learn how far to trust each prompt; without
# human labels it makes no requests. The estimate is for the remaining requests.

annotator = LLMAnnotator(
    classes,
    model,
    prompts=bank,
    base_url=os.environ.get("DIALPREF_BASE_URL"),
    prices=(0.15, 0.60),  # of a million tokens in, and out
    budget=1.0,  # never more than that in a pass
)
annotator.fit(X, y_human)
print(pd.Series(annotator.estimate_cost(X)).to_string())

# %%
# The labels
# ----------
# The scores per class can be used as ``y_llm``. Answers are cached: asking again costs nothing.

with warnings.catch_warnings(action="ignore"):  # rows without an answer stay NaN
    y_llm = annotator.predict_proba(X)
print(annotator.card())

# %%
# The student
# -----------
# The student is compared with one trained on human labels alone, on held-out dialogues. The
# stand-in is a poor teacher, right on some 60 % of the utterances, so its labels do not help.
# Those of a real model do, as the figures in the README show. Use ``estimate_cost``, the card and
# ``agreement_`` to judge a teacher before you train a student.

scores = {}
for name, labels in {"human labels only": None, "human + LLM labels": y_llm}.items():
    student = DialoguePreferenceClassifier(context_turns=1, random_state=0)
    predicted = student.fit(X, y_human, labels).predict(chats.X[test])
    scores[name] = f1_score(chats.y[test], predicted, average="macro")
print(pd.Series(scores, name="macro-F1").round(3).to_string())

# %%
# A model is right more often where its prompts agree. ``agreement_`` has their share for each
# utterance: how many of the eight prompts gave the commonest label.

right = annotator.classes_[np.nan_to_num(y_llm).argmax(axis=1)] == chats.y[train]
n_agree = (annotator.agreement_ * len(bank)).round().astype(int)
table = pd.Series(right).groupby(n_agree).agg(["mean", "size"])
_, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
bars = ax.bar(table.index, table["mean"], color="#4c78a8")
ax.bar_label(bars, [f"{n} utterances" for n in table["size"]], padding=2)
ax.set(xlabel="prompts that agree", ylabel="share right", ylim=(0, 1), xticks=table.index)
ax.set_title("Prompts that agree are right more often")
plt.show()
