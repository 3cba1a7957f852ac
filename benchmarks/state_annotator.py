"""From the votes of an LLM that errs at a known rate to a tracker of dialogue states.

    python -m benchmarks.state_annotator --data-dir DIR

From the repository root. A function that knows the true states of SGD (the task "states" of
``benchmarks.tasks``) stands for the LLM. It is asked by ``DialogueStateAnnotator`` as any model
is, about whole dialogues, and answers in JSON; of what it is to answer a known share is wrong.
"""

import argparse
import json
import platform
import re
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.evidence.data import add_data_option
from benchmarks.tasks.data import HUMAN_ONLY, Problem, draw_human, known, states
from benchmarks.tasks.run import counted, measures
from sklearn_dialpref import (
    DialoguePreferenceClassifier,
    DialogueStateAnnotator,
    DialogueStateTracker,
)
from sklearn_dialpref.annotation.state_slots import SlotNames

FREE = "<set>"  # the value of a free slot: the task knows only that it has one
SHARED = 0.5  # share of what goes wrong that goes wrong for all prompts
UNREADABLE = 0.002  # share of the answers about an utterance that name an unknown slot
TURN = re.compile(r"^(\d+): (.+)$", re.M)
NUMBERS = re.compile(r"turns? ([\d, ]*\d)")
N_PROMPTS = 3


class KnowingLLM:
    """Answers with the true changes, but for a share of them.

    Of the changes of an utterance the share ``error`` is left out, or has another value, and to
    as many utterances as ``error`` says one change is added.

    Parameters
    ----------
    problem : Problem
        Of kind "state".
    error : float
    """

    name = "knowing"

    def __init__(self, problem: Problem, error: float) -> None:
        self.error = error
        names = SlotNames(problem.slots)
        self.name_of = {slot: name for name, slot in names.slot_of.items()}
        self.values = {slot: list(names.values_of.get(self.name_of[slot], [FREE]))
                       for slot in problem.slots}  # fmt: skip
        self.true = [{} for _ in problem.y]
        self.services, self.rows = {}, {}
        for _, part in problem.X.groupby("dialogue_id", sort=False):
            rows = part.index.to_list()
            texts = tuple(part["text"])
            self.rows[texts] = None if texts in self.rows else rows
            self._add_changes(problem.y, rows)

    def _add_changes(self, y: np.ndarray, rows: list[int]) -> None:
        before: dict = {}
        slots = {slot for row in rows for slot in y[row] or ()}
        for row in rows:
            self.services[row] = sorted(slots)
            if y[row] is None:
                continue
            for slot in slots:
                old, new = before.get(slot), y[row].get(slot)
                if new != old:
                    self.true[row][slot] = self._shown(slot, new)
            before = y[row]

    def _shown(self, slot: tuple, spellings: list[str] | None) -> str:
        if spellings is None:
            return "cleared"
        if "dontcare" in spellings:
            return "dontcare"
        return next((one for one in spellings if one in self.values[slot]), FREE)

    def __call__(self, messages: list[dict[str, str]]) -> str:
        content = messages[-1]["content"]
        turns = {number: json.loads(turn) for number, turn in TURN.findall(content)}
        rows = self.rows[tuple(next(iter(turn.values())) for turn in turns.values())]
        asked = NUMBERS.search(content)[1].split(", ")
        prompt = zlib.crc32(messages[0]["content"].encode())
        return json.dumps({n: self.answer(rows[int(n) - 1], prompt) for n in asked})

    def answer(self, row: int, prompt: int) -> list[dict[str, str]]:
        """The changes of a row as this prompt has them."""
        shared, own = np.random.default_rng(row), np.random.default_rng((row, prompt))

        def wrong() -> bool:
            chances, which = (shared.random(), own.random()), own.random()
            return chances[which > SHARED] < self.error

        changes = {}
        for slot, value in self.true[row].items():
            others = [one for one in self.values[slot] if one != value]
            if not wrong():
                changes[slot] = value
            elif others and own.random() < 0.5:
                changes[slot] = others[own.integers(len(others))]
        if wrong() and self.services[row]:
            slot = self.services[row][own.integers(len(self.services[row]))]
            changes.setdefault(slot, self.values[slot][own.integers(len(self.values[slot]))])
        named = [{self.name_of[slot]: value} for slot, value in changes.items()]
        return [*named, {"unknown": "x"}] if own.random() < UNREADABLE else named


def scores(problem: Problem, predicted: np.ndarray, X: pd.DataFrame, y: np.ndarray) -> dict:
    """Joint goal accuracy and slot F1 on utterances with a true state."""
    part = Problem(problem.name, problem.kind, X, y, X, y, problem.votes)
    counts = counted(part, predicted, None).sum(axis=0)
    return {name: float(value) for name, value in measures("state", counts).items()}


def of_votes(problem: Problem, votes: np.ndarray) -> dict:
    """Means over the members; an unknown state counts as an empty one."""
    filled = [np.array([state or {} for state in vote], dtype=object) for vote in votes.T]
    each = [scores(problem, vote, problem.X, problem.y) for vote in filled]
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def tracked(problem: Problem, y_human, votes, seed: int) -> dict:
    """What a tracker scores on the test dialogues."""
    student = DialoguePreferenceClassifier(context_turns=1, random_state=seed)
    tracker = DialogueStateTracker(student, slots=problem.slots)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tracker.fit(problem.X, y_human, votes)
    return scores(problem, tracker.predict(problem.X_test), problem.X_test, problem.y_test)


def row(error, budget, method: str, values: list[dict]) -> dict:
    mean = {name: np.mean([one[name] for one in values]) for name in values[0]}
    return {"error": error, "human labels": budget, "method": method,
            **{name: f"{value:.3f}" for name, value in mean.items()}}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.state_annotator", description=__doc__.splitlines()[0]
    )
    add_data_option(parser, without_fetcher=("sgd",))
    parser.add_argument("--errors", nargs="+", type=float, default=[0.0, 0.1, 0.3])
    parser.add_argument("--budgets", nargs="+", type=int, default=[100, 400])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/state_annotator.md"))
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    problem = states(options.data_dir, None)
    lines, notes = [], []
    human = {(budget, seed): draw_human(problem, budget, seed)
             for budget in options.budgets for seed in options.seeds}  # fmt: skip
    for budget in options.budgets:
        found = [tracked(problem, human[budget, seed], None, seed) for seed in options.seeds]
        lines.append(row("", budget, f"tracker, {HUMAN_ONLY}", found))
    for error in options.errors:
        annotator = DialogueStateAnnotator(
            problem.slots, KnowingLLM(problem, error), n_prompts=N_PROMPTS,
            utterances_per_call="dialogue",
        ).fit(problem.X, problem.y)  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            votes = annotator.predict(problem.X)
        lines.append(row(error, "", "LLM, mean of its prompts", [of_votes(problem, votes)]))
        share = np.mean([state is not None for state in votes[known(problem.y)].ravel()])
        notes.append(
            f"error {error:g}: {annotator.usage_['calls']} calls, {len(annotator.failures_)} "
            f"failed answers, {share:.1%} of the states known, agreement "
            f"{np.nanmean(annotator.agreement_):.2f}"
        )
        for budget in options.budgets:
            found = [tracked(problem, human[budget, seed], votes, seed) for seed in options.seeds]
            lines.append(row(error, budget, "tracker, and the LLM's states", found))
    table = pd.DataFrame(lines).to_markdown(index=False)
    asked = int(known(problem.y).sum())
    text = (
        f"# From an LLM's states to a tracker\n\nSGD, {asked} utterances of users that "
        f"{N_PROMPTS} prompts ask about, {int(known(problem.y_test).sum())} in test, "
        f"{len(options.seeds)} seeds; the LLM is scored on training dialogues, with an unknown "
        f"state as an empty one.\n\n{table}\n\n"
        + "\n".join(f"- {note}" for note in notes)
        + "\n\n"
        f"`python -m benchmarks.state_annotator`, {platform.processor() or platform.machine()}, "
        f"{time.strftime('%Y-%m-%d')}\n"
    )
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
