"""Dialogue states, tracked by classifying what each utterance does to each slot."""

from .flatten import flatten_states
from .tracker import DialogueStateTracker

__all__ = ["DialogueStateTracker", "flatten_states"]
