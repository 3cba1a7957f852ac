"""From an LLM that errs at a known rate, about any number of labels, to a multilabel student.

    python -m benchmarks.several_labels --data-dir DIR

From the repository root. A function that knows the ten strategies of CaSiNo (the task
"strategies" of ``benchmarks.tasks``) stands for the LLM. ``LLMAnnotator`` asks it as any model,
about whole dialogues by four prompts, and learns from the human labels of whole dialogues. Its
scores are measured on all other dialogues, the student on the test dialogues.
"""

import argparse
import json
import platform
import re
import time
import warnings
import zlib

import numpy as np
import pandas as pd
import torch

from benchmarks.evidence.data import add_data_option
from benchmarks.tasks.data import Problem, draw_human, strategies
from benchmarks.tasks.run import counted, measures
from benchmarks.tasks.simulated import Simulator, measured_profiles, typical_profile
from sklearn_dialpref import DialoguePreferenceClassifier, LLMAnnotator, PromptBank
from sklearn_dialpref.annotation.checks import LEARNABLE

MISSED, ADDED = 0.3, 0.08  # share of the labels that are left out, and of others that are given
SHARED = 0.5  # share of what goes wrong that goes wrong for all prompts
TURN = re.compile(r"^(\d+): (.+)$", re.M)
LABEL = re.compile(r"^(\w+): (label\d+)$", re.M)


class KnowingLLM:
    """Answers with the true labels, but for known shares of them.

    Parameters
    ----------
    problem : Problem
        Of kind "labels".
    """

    name = "knowing"

    def __init__(self, problem: Problem) -> None:
        texts = problem.X["text"].str.strip().str.replace(r"\s+", " ", regex=True)
        self.labels = dict(zip(texts, problem.y, strict=True))

    def __call__(self, messages: list[dict[str, str]]) -> str:
        content = messages[-1]["content"]
        codes = {label: code for code, label in LABEL.findall(content)}
        head = zlib.crc32(content.split(": {")[0].encode())
        lines = []
        for number, turn in TURN.findall(content):
            if turn.startswith("{"):
                given = self.given(turn, head)
                if given is None:
                    continue
                chosen = [codes[f"label{label}"] for label in np.flatnonzero(given)]
                lines.append(f"{number}: {' '.join(chosen) or 'none'};")
        return "\n".join(lines)

    def given(self, turn: str, head: int) -> np.ndarray | None:
        """The labels that it gives; None where nobody knows the true ones."""
        text = " ".join(next(iter(json.loads(turn).values())).split())
        if np.isnan(self.labels[text]).any():
            return None
        true = self.labels[text] > 0
        everyone = np.random.default_rng(zlib.crc32(text.encode()))
        alone = np.random.default_rng([zlib.crc32(text.encode()), head])
        size = len(true)
        draw = np.where(everyone.random(size) < SHARED, everyone.random(size), alone.random(size))
        return true != (draw < np.where(true, MISSED, ADDED))


def quality(proba: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Log-loss, Brier score and calibration error of all labels together."""
    p, true = np.clip(proba.ravel(), 0.005, 0.995), y.ravel()
    place = np.minimum((p * 10).astype(int), 9)
    gaps = [abs(p[place == one].mean() - true[place == one].mean()) * (place == one).mean()
            for one in np.unique(place)]  # fmt: skip
    return {
        "log-loss": float(-np.log(np.where(true > 0, p, 1 - p)).mean()),
        "Brier": float(((p - true) ** 2).mean()),
        "calibration error": float(sum(gaps)),
    }


def annotated(
    problem: Problem,
    model: KnowingLLM,
    y_human: np.ndarray | None,
    learn: tuple[str, ...] = LEARNABLE,
) -> np.ndarray:
    classes = [f"label{label}" for label in range(problem.y.shape[1])]
    prompts = PromptBank.default("the strategy", classes, size=4, multilabel=True, stretches=True)
    teacher = LLMAnnotator(
        classes, model, multilabel=True, prompts=prompts, cache=None, learn=learn,
        utterances_per_call="dialogue", max_retries=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of utterances without an answer
        return teacher.fit(problem.X, y_human).predict_proba(problem.X)


def student(problem: Problem, y_human: np.ndarray, y_llm: np.ndarray | None, seed: int) -> float:
    clf = DialoguePreferenceClassifier(context_turns=1, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        clf.fit(problem.X, y_human, y_llm)
    counts = counted(problem, clf.predict(problem.X_test), clf).sum(axis=0)
    return float(measures("labels", counts)["macro-F1"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser, without_fetcher=("casino",))
    parser.add_argument("--budgets", nargs="+", type=int, default=[100, 400])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    simulator = Simulator(typical_profile(measured_profiles(options.data_dir)))
    problem = strategies(options.data_dir, simulator)
    model, rows = KnowingLLM(problem), []
    mean = annotated(problem, model, None)
    for budget in options.budgets:
        for seed in options.seeds:
            y_human = draw_human(problem, budget, seed)
            teachers = {"human labels only": None, "mean": mean}
            for learn in (LEARNABLE, ("temperature", "weights")):
                teachers["learned: " + ", ".join(learn)] = annotated(
                    problem, model, y_human, learn
                )
            rest = np.isnan(y_human).all(axis=1) & ~np.isnan(problem.y).any(axis=1)
            for name, y_llm in teachers.items():
                scores = {} if y_llm is None else quality(y_llm[rest], problem.y[rest])
                scores["student, macro-F1"] = student(problem, y_human, y_llm, seed)
                rows.append({"human labels": budget, "scores": name, **scores})
    table = pd.DataFrame(rows).groupby(["human labels", "scores"], sort=False)
    text = table.mean().map("{:.3f}".format) + " ± " + table.std().map("{:.3f}".format)
    print(text.replace("nan ± nan", "").reset_index().to_markdown(index=False))
    n_rows = int((~np.isnan(mean[:, 0])).sum())
    print(
        f"\n{n_rows} utterances with labels, {len(options.seeds)} seeds; {MISSED:.0%} of the "
        f"labels missed, {ADDED:.0%} of the others given; {platform.machine()}, "
        f"{time.strftime('%Y-%m-%d')}"
    )


if __name__ == "__main__":
    main()
