"""Dialogue states, tracked by classifying what each utterance does to each slot."""

from .tracker import DialogueStateTracker

__all__ = ["DialogueStateTracker"]
