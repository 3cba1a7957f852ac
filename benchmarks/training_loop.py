"""Time of ``fit`` against a hand-written torch loop that takes the same steps on the same batches.

    python benchmarks/training_loop.py
    python benchmarks/training_loop.py --repeats 5 --cases features fine-tuned

Both train the same student from the same start: the default schedule (soft distillation, then
pairs beside human labels), AdamW, the same learning rate at each step, gradients clipped at 1.
Both check and order the input and build the student; ``fit`` also keeps a history, calls callbacks
and calibrates.  Dropout masks differ, as a DataLoader draws from the same generator.  Runs
alternate; the table gives medians, and the ratio of each pair of neighbours.
"""

import argparse
import statistics
import time

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state

from sklearn_dialpref import DialoguePreferenceClassifier, _net, _stages
from sklearn_dialpref._inputs import student_and_rows
from sklearn_dialpref._targets import check_targets
from sklearn_dialpref._texts import text_slots
from sklearn_dialpref._validation import check_dialogues
from sklearn_dialpref.datasets import load_support_chats, make_dialogues

CASES = ["features", "fine-tuned"]
STAGES = {"loss": "noise_reduced", "schedule": "distill_then_joint"}


def data_of(case: str) -> tuple[pd.DataFrame, object, object, dict]:
    """Utterances, human labels, LLM labels and settings of a case."""
    if case == "features":
        data = make_dialogues(1000, n_features=384, human_fraction=0.02, random_state=0)
        return data.X, data.y_human, data.y_llm, {"encoder": "precomputed", **STAGES}
    chats = load_support_chats()
    return chats.X, chats.y_human, chats.y_llm, STAGES


def hand_written(X: object, y_human: object, y_llm: object, settings: dict) -> float:
    """Seconds of a plain loop."""
    clf = DialoguePreferenceClassifier(**settings, random_state=0, device="cpu")
    start = time.perf_counter()
    precomputed = settings.get("encoder") == "precomputed"
    dialogues = check_dialogues(X, precomputed=precomputed)
    targets = check_targets(y_human, y_llm, len(dialogues))
    seed = check_random_state(0).randint(2**31 - 1)
    torch.manual_seed(seed)
    student, rows = student_and_rows(
        dialogues, text_slots(dialogues, 0), targets, (clf.encoder, None, clf.pooling), "cpu"
    )
    frozen = student.encoder is None
    recipe = _stages.Recipe.of(clf, student, seed, "cpu")
    stages = _stages.plan_stages(clf.schedule, clf.loss, has_human=True, has_llm=True)
    facts = _stages.label_facts(rows, targets.classes, None, with_confusion=False)
    nobody = np.zeros(len(rows.group), dtype=bool)
    student.train()
    for plan in _net.plan_training(student, rows, nobody, stages, recipe):
        rate = plan.learning_rate
        decay = _net.WEIGHT_DECAY["frozen" if frozen else "fine_tuned"]
        groups = [{"params": list(student.head.parameters())}]
        if not frozen:
            groups[0]["lr"] = max(_net.HEAD_LEARNING_RATE, rate)
            groups.append({"params": list(student.encoder.parameters())})
        optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
        total = plan.steps
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step, total=total: min(
                (step + 1) / max(1.0, 0.1 * total), max(0.0, (total - step) / (0.9 * total))
            ),
        )
        criterion = _stages.StageLoss(plan.stage, recipe, facts)
        for _ in range(plan.epochs):
            for inputs, target in plan.batches:
                optimizer.zero_grad()
                loss = criterion(student(**inputs), target)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    return time.perf_counter() - start


def estimator(X: object, y_human: object, y_llm: object, settings: dict) -> float:
    clf = DialoguePreferenceClassifier(**settings, random_state=0, device="cpu")
    start = time.perf_counter()
    clf.fit(X, y_human, y_llm)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print("| case | hand-written s | fit s | ratio (median of pairs) | least | most |")
    print("|---|---|---|---|---|---|")
    for case in options.cases:
        data = data_of(case)
        hand_written(*data), estimator(*data)  # files and allocators warm
        pairs = []
        for number in range(options.repeats):
            runs = [hand_written, estimator] if number % 2 == 0 else [estimator, hand_written]
            seconds = {run.__name__: run(*data) for run in runs}
            pairs.append((seconds["hand_written"], seconds["estimator"]))
        plain, fit = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = [f / p for p, f in pairs]
        print(
            f"| {case} | {plain:.2f} | {fit:.2f} | {statistics.median(ratios):.2f} "
            f"| {min(ratios):.2f} | {max(ratios):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
