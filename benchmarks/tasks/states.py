"""Dialogue states, and simulated ones of an LLM."""

from collections import defaultdict

import numpy as np

from .simulated import N_VOTES, Simulator

__all__ = ["StateVotes", "free_slots", "spelled_states"]

MOST_VALUES = 12  # of a categorical slot
SET = "<set>"

RawState = dict[str, dict[str, list[str]]]  # by service and slot, the spellings of the value


def free_slots(states: list[RawState | None]) -> set[tuple[str, str]]:
    """Slots with too many values to be categorical."""
    values = defaultdict(set)
    for state in states:
        for service, slots in (state or {}).items():
            for slot, spellings in slots.items():
                values[service, slot].add(spellings[0])
    return {slot for slot, options in values.items() if len(options) > MOST_VALUES}


def spelled_states(states: list[RawState | None], free: set[tuple[str, str]]) -> np.ndarray:
    """States by (service, slot), in lower case; of a free slot only that it is set."""
    spelled = np.empty(len(states), dtype=object)
    for row, state in enumerate(states):
        if state is not None:
            spelled[row] = {
                (service, slot): [SET]
                if (service, slot) in free and spellings != ["dontcare"]
                else sorted({spelling.lower() for spelling in spellings})
                for service, slots in state.items()
                for slot, spellings in slots.items()
            }
    return spelled


class StateVotes:
    """States as an LLM might give them, that errs about what each utterance changed.

    For each utterance and each slot of its dialogue's service an LLM says whether the slot
    changed, and errs as often, with such biases, as real ones do about classes. Of a change that
    happened it has the value right; one that did not takes a value at random.

    Parameters
    ----------
    y : ndarray of shape (n,), of dict or None
    groups : ndarray of shape (n,)
    simulator : Simulator
    """

    def __init__(self, y: np.ndarray, groups: np.ndarray, simulator: Simulator) -> None:
        self.y, self.groups, self.simulator = y, groups, simulator
        values = defaultdict(set)
        for state in y:
            for slot, spellings in (state or {}).items():
                values[slot].add(spellings[0])
        self.values = {slot: sorted(values[slot]) for slot in sorted(values)}

    def slots(self, free: set[tuple[str, str]]) -> dict:
        """As :class:`DialogueStateTracker` takes them."""
        return {slot: None if slot in free else v for slot, v in self.values.items()}

    def __call__(self, seed: int) -> np.ndarray:
        of_service = defaultdict(list)
        for slot in self.values:
            of_service[slot[0]].append(slot)
        services = defaultdict(set)
        for group, state in zip(self.groups, self.y, strict=True):
            services[group].update(service for service, _ in state or ())
        items, truth = [], []
        before, last = {}, None
        for row, (group, state) in enumerate(zip(self.groups, self.y, strict=True)):
            if group != last:
                before, last = {}, group
            if state is None:
                continue
            for slot in (slot for service in services[group] for slot in of_service[service]):
                items.append((row, slot))
                truth.append(int(before.get(slot) != state.get(slot)))
            before = state
        rows = np.array([row for row, _ in items])
        answers = self.simulator(np.array(truth), self.groups[rows], 2, seed)
        rng = np.random.default_rng(seed)
        votes = np.full((len(self.y), N_VOTES), None, dtype=object)
        for vote in range(N_VOTES):
            self._accumulate(votes[:, vote], items, np.array(truth), answers[:, vote], rng)
        return votes

    def _accumulate(self, votes, items, truth, answers, rng) -> None:
        """Write the states that the changes add up to."""
        made = defaultdict(list)
        for (row, slot), true, change in zip(items, truth, answers, strict=True):
            if change:
                values = self.values[slot]
                value = values[rng.integers(len(values))]
                if true:
                    value = self.y[row].get(slot, [None])[0]
                made[row].append((slot, value))
        state, last = {}, None
        for row, group in enumerate(self.groups):
            if group != last:
                state, last = {}, group
            if self.y[row] is None:
                continue
            for slot, value in made[row]:
                if value is None:
                    state.pop(slot, None)
                else:
                    state[slot] = value
            votes[row] = dict(state)
