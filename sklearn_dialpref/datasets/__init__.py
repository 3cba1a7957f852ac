"""Data sets to learn and to test with: synthetic, and bundled."""

from ._dialogues import make_dialogues
from ._simulated import simulate_votes
from ._support_chats import load_support_chats

__all__ = ["load_support_chats", "make_dialogues", "simulate_votes"]
