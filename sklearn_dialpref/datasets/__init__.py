"""Data sets to learn and to test with: synthetic, and bundled."""

from sklearn_dialpref.datasets._dialogues import make_dialogues
from sklearn_dialpref.datasets._simulated import simulate_votes
from sklearn_dialpref.datasets._support_chats import load_support_chats

__all__ = ["load_support_chats", "make_dialogues", "simulate_votes"]
