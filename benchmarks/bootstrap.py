"""Paired bootstrap over dialogues, for all reports."""

from functools import lru_cache

import numpy as np

__all__ = ["DRAWS", "dialogue_weights", "lead_with_interval"]

DRAWS = 1000


@lru_cache
def dialogue_weights(n_dialogues: int) -> np.ndarray:
    """How often each dialogue is in each draw, the same for all methods; the first: once each.

    Tasks on the same dialogues share their draws too; those on others have draws of their own.
    """
    even = np.full(n_dialogues, 1 / n_dialogues)
    drawn = np.random.default_rng(n_dialogues).multinomial(n_dialogues, even, size=DRAWS)
    return np.vstack([np.ones(n_dialogues), drawn])


def lead_with_interval(lead: np.ndarray) -> str:
    """A lead as it is, the first, and the 95 % interval of its draws, the others."""
    low, high = np.percentile(lead[1:], [2.5, 97.5])
    return f"{lead[0]:+.1f} [{low:+.1f}, {high:+.1f}]"
