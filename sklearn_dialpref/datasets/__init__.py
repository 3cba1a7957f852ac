"""Data sets to learn and to test with: synthetic, bundled, and public ones that are downloaded."""

from ._deli import fetch_deli
from ._dialogues import make_dialogues
from ._meld import fetch_meld
from ._p4g import fetch_p4g
from ._simulated import simulate_votes
from ._support_chats import load_support_chats
from ._talkmoves import fetch_talkmoves

__all__ = [
    "fetch_deli",
    "fetch_meld",
    "fetch_p4g",
    "fetch_talkmoves",
    "load_support_chats",
    "make_dialogues",
    "simulate_votes",
]
