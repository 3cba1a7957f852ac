"""Paired bootstrap over dialogues, used by all reports."""

from functools import lru_cache

import numpy as np

__all__ = ["DRAWS", "dialogue_weights", "lead_with_interval"]

DRAWS = 1000


@lru_cache
def dialogue_weights(n_dialogues: int) -> np.ndarray:
    """Count of each dialogue in each draw, the same for all methods; in the first draw it is one.

    The seed is the number of dialogues, so tasks on the same dialogues share their draws.
    """
    even = np.full(n_dialogues, 1 / n_dialogues)
    drawn = np.random.default_rng(n_dialogues).multinomial(n_dialogues, even, size=DRAWS)
    return np.vstack([np.ones(n_dialogues), drawn])


def lead_with_interval(lead: np.ndarray) -> str:
    """Format the observed lead, the first value, and the 95 % interval over the other draws."""
    low, high = np.percentile(lead[1:], [2.5, 97.5])
    return f"{lead[0]:+.1f} [{low:+.1f}, {high:+.1f}]"
