"""
Serving: a live chat, labelled as it goes
=========================================

We export a fitted classifier as one ONNX graph, which runs without torch. A stream then labels the
utterances of a chat as they arrive.

It needs ``pip install 'sklearn-dialpref[offline,onnx,plot]' pandas``.
"""

# %%
# Train as usual. The encoder is frozen, so this takes seconds.
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    DialogueStream,
    MicroBatcher,
    OnnxDialogueClassifier,
    export_onnx,
)
from sklearn_dialpref.datasets import load_support_chats

chats = load_support_chats()
train, test = ~chats.test, chats.test
clf = DialoguePreferenceClassifier(context_turns=1, random_state=0)
clf.fit(chats.X[train], chats.y_human[train], chats.y_llm[train])

# %%
# The export compares the graph with the classifier on held-out dialogues, and refuses to write a
# graph that differs by more than the tolerance. With int8 a few labels change. ``print(report)``
# also has the milliseconds of one utterance on your machine.
folder = tempfile.mkdtemp()
checks = {"X_check": chats.X[test], "y_check": chats.y[test]}
reports = [
    export_onnx(clf, f"{folder}/float32", **checks),
    export_onnx(clf, f"{folder}/int8", precision="int8", max_loss=0.02, **checks),
]
columns = ["precision", "same", "score", "score_before", "megabytes", "megabytes_before"]
pd.DataFrame(reports)[columns].round(3)

# %%
# A server loads the folder. A stream is one dialogue. It keeps the context that the classifier
# needs, and labels each utterance immediately.
model = OnnxDialogueClassifier.load(f"{folder}/int8", threads=1)
chat = [
    ("customer", "Hi, my order was to come on Monday and it is Thursday now."),
    ("agent", "I am sorry about that. May I have the number of your order?"),
    ("customer", "It is 30719. This is the second time, I am really annoyed."),
    ("agent", "It is at the depot and will be with you tomorrow before noon."),
    ("customer", "Tomorrow, finally."),
    ("agent", "I have also refunded the shipping."),
    ("customer", "Oh, that is kind, thank you very much!"),
]
stream = DialogueStream(model)
answers = [stream.push(text) for _, text in chat]

# %%
# The labels and probabilities over the course of the chat:
scores = np.array([answer.scores for answer in answers])
colors = {"negative": "#d1495b", "neutral": "#cfcfcf", "positive": "#3a7d44"}
figure, ax = plt.subplots(figsize=(10, 3.6), layout="constrained")
left = np.zeros(len(chat))
for name, column in zip(model.classes_, scores.T, strict=True):
    ax.barh(range(len(chat)), column, left=left, color=colors[name], label=name)
    left += column
ax.set(xlim=(0, 1), xlabel="probability", title="A live chat, labelled by the int8 graph")
ax.set_yticks(range(len(chat)), [f"{speaker}: {text}" for speaker, text in chat])
ax.invert_yaxis()
for row, answer in enumerate(answers):
    ax.annotate(answer.label, (1.01, row), va="center", annotation_clip=False)
figure.legend(loc="outside lower right", ncols=3)
plt.show()

# %%
# Many chats at once share a model through a :class:`MicroBatcher`: utterances that wait at the
# same time are labelled in one batch, and when too many wait, senders are slowed down. ``apush``
# does the same for coroutines.
with MicroBatcher(model, max_batch=32, max_pending=256) as batcher:
    streams = {number: DialogueStream(batcher) for number in range(3)}
    print([stream.push("Hello, I have a question.").label for stream in streams.values()])
