"""Quality by encoder size: a static encoder and 2 to 6 layers, in float32 and int8.

    python -m benchmarks.frontier

The students are frozen, have one utterance of context, and are trained on human labels of whole
dialogues and all LLM votes. Then all graphs are timed in turn in this process.
"""

import argparse
import platform
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.evidence.data import TASKS, Cell, add_data_option, load_split, make_cell
from benchmarks.evidence.features import ENCODER
from benchmarks.evidence.ours import STUDENTS, Method
from benchmarks.evidence.report import markdown
from benchmarks.evidence.run import score
from benchmarks.serving import calls_of_length, in_turns, megabytes, per_second, static_encoder
from sklearn_dialpref import DialoguePreferenceClassifier, OnnxDialogueClassifier, export_onnx
from sklearn_dialpref._student.encoders import resolve_encoder

LAYERS = (2, 3, 4, 6)
PRECISIONS = ("float32", "int8")
MEASURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
N_TOKENS, N_CALLS, BATCH = 16, 400, 256
N_CHECKED = 100  # utterances on which an export is checked


@dataclass(frozen=True)
class Plan:
    """Data, budgets, seeds and encoders of the quality measurements."""

    folder: Path
    part: str
    budgets: list[int]
    seeds: list[int]
    encoders: dict[str, dict]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser)
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--budgets", nargs="+", type=int, default=[100, 400])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="processes for quality")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


# -- quality --------------------------------------------------------------------------------


def qualities(job: tuple[str, str], plan: Plan) -> list[dict]:
    """Scores of one encoder on one task, for all budgets, seeds and precisions."""
    torch.set_num_threads(1)
    task, encoder = job
    split = load_split(TASKS[task], plan.folder, plan.part)
    results = []
    for budget, seed in product(plan.budgets, plan.seeds):
        cell = make_cell(split, budget, seed)
        clf = fitted(cell, seed, plan.encoders[encoder])
        labelled = split.evaluation["dialogue_id"][cell.evaluated]
        whole = split.evaluation["dialogue_id"].isin(labelled).to_numpy()  # with their contexts
        rows, evaluated = split.evaluation[whole], cell.evaluated[whole]
        with tempfile.TemporaryDirectory() as folder:
            served = exported(clf, Path(folder) / "int8", rows, "int8")
            for precision, model in zip(PRECISIONS, (clf, served), strict=True):
                scores = score(cell, model.predict_proba(rows)[evaluated])
                key = dict(zip(("encoder", "precision"), (encoder, precision), strict=True))
                results.append({**key, "task": task, "budget": budget, "seed": seed, **scores})
    print(f"{task}, {encoder}: done", flush=True)
    return results


def fitted(cell: Cell, seed: int, options: dict) -> DialoguePreferenceClassifier:
    parameters = {**STUDENTS["frozen"], **options}
    clf = DialoguePreferenceClassifier(classes=cell.classes, random_state=seed, **parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clf.fit(cell.split.train, cell.y_human, Method(parameters).votes(cell, seed))


def exported(clf, folder: Path, rows: pd.DataFrame, precision: str) -> OnnxDialogueClassifier:
    export_onnx(clf, folder, X_check=rows[:N_CHECKED], precision=precision, max_loss=1)
    return OnnxDialogueClassifier.load(folder, threads=1)


def all_qualities(jobs: list[tuple[str, str]], plan: Plan, n_jobs: int) -> pd.DataFrame:
    if n_jobs == 1:
        rows = [qualities(job, plan) for job in jobs]
    else:
        with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
            rows = list(pool.map(partial(qualities, plan=plan), jobs))
    return pd.DataFrame([row for some in rows for row in some])


# -- time and size --------------------------------------------------------------------------


def speeds(task: str, plan: Plan, work: Path) -> pd.DataFrame:
    """Milliseconds, utterances per second and megabytes of each graph; quality does not matter."""
    torch.set_num_threads(1)
    split = load_split(TASKS[task], plan.folder, plan.part)
    rows = split.train[:N_CHECKED]
    labels = np.resize(split.classes, len(rows)).astype(object)
    quick = {**STUDENTS["frozen"], "max_epochs": 1}
    served = {}
    for encoder, options in plan.encoders.items():
        clf = DialoguePreferenceClassifier(**quick, **options, random_state=0).fit(rows, labels)
        for precision in PRECISIONS:
            folder = work / f"{encoder}, {precision}"
            served[encoder, precision] = exported(clf, folder, rows, precision)
    texts = split.train["text"].tolist()
    contenders = {key: model.predict_proba for key, model in served.items()}
    # counted by a transformer's tokenizer, with its special tokens
    calls = calls_of_length(texts, served[f"{LAYERS[-1]} layers", "float32"], N_TOKENS, N_CALLS)
    took = in_turns(contenders, calls)
    table = {
        key: {
            "ms": np.median(took[key]),
            "per_second": per_second(run, texts, BATCH),
            "megabytes": megabytes(work / ", ".join(key)),
        }
        for key, run in contenders.items()
    }
    return pd.DataFrame(table).T.rename_axis(["encoder", "precision"])


# -- report ---------------------------------------------------------------------------------


def report(scores: pd.DataFrame, speed: pd.DataFrame, options: argparse.Namespace) -> str:
    note = (
        f"Accuracy and macro-F1: means over tasks ({', '.join(options.tasks)}) and over seeds "
        f"({', '.join(map(str, options.seeds))}), {options.part} dialogues, "
        "of the classifier for float32, with which its graph agrees, and of the graph for int8. "
        f"ms: the median of {N_CALLS} single utterances of {N_TOKENS} tokens without context; "
        "a context would be a second text. "
        f"Per second: in batches of {BATCH} of mixed length. MB: the exported folder with the "
        "tokenizer. Graphs are timed in turn on one thread. The static encoder has MiniLM's "
        "embedding of each token alone."
    )
    parts = ["# Size of the encoder against quality", markdown(summary(scores, speed)), note]
    for name, (measure, title) in zip("AM", MEASURES.items(), strict=True):
        title = name + title[1:]
        for budget in options.budgets:
            table = markdown(by_task(scores[scores["budget"] == budget], measure))
            parts += [f"## {title} at {budget} human labels", table]
    parts += ["Mean ± standard deviation over seeds." * (len(options.seeds) > 1)]
    if plot(scores, speed, options.out / "frontier.png"):
        parts += ["![Macro-F1 against milliseconds](frontier.png)"]
    machine = platform.processor() or platform.machine()
    command = f"`python -m benchmarks.frontier --part {options.part}`"
    parts += [f"{command}, {machine}, {time.strftime('%Y-%m-%d')}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def means(scores: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Means over tasks with equal weights; a column for each budget."""
    keys = ["encoder", "precision"]
    by = scores.groupby([*keys, "budget", "task"], sort=False)[measure].mean()
    return by.groupby([*keys, "budget"], sort=False).mean().unstack("budget")


def summary(scores: pd.DataFrame, speed: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame(index=speed.index)
    for measure, title in MEASURES.items():
        for budget, column in means(scores, measure).items():
            table[f"{title}, {budget} labels"] = column.map("{:.3f}".format)
    table["ms"] = speed["ms"].map("{:.2f}".format)
    table["per second"] = speed["per_second"].map("{:.0f}".format)
    table["MB"] = speed["megabytes"].map("{:.1f}".format)
    return named(table)


def by_task(scores: pd.DataFrame, measure: str) -> pd.DataFrame:
    by = scores.groupby(["encoder", "precision", "task"], sort=False)[measure]
    cells = by.mean().map("{:.3f}".format)
    if scores["seed"].nunique() > 1:
        cells += by.std().map(" ± {:.3f}".format)
    return named(cells.unstack("task")[list(scores["task"].unique())])


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Sort the rows by encoder, and give each row one name."""
    table = table.reindex(sorted(table.index, key=lambda key: (key[0] != "static", *key)))
    return table.set_axis([", ".join(key) for key in table.index]).rename_axis("encoder")


def plot(scores: pd.DataFrame, speed: pd.DataFrame, path: Path) -> bool:
    """Plot macro-F1 against the time of one utterance, with a panel for each budget."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    quality = means(scores, "macro_f1")
    figure, axes = plt.subplots(
        1,
        quality.shape[1],
        figsize=(5 * quality.shape[1], 4),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis, (budget, column) in zip(axes[0], quality.items(), strict=True):
        for precision in PRECISIONS:
            one = column.xs(precision, level="precision")
            ms = speed["ms"].xs(precision, level="precision").sort_values()
            axis.plot(ms, one[ms.index], marker="o", label=precision)
            for encoder in ms.index:
                point = (ms[encoder], one[encoder])
                axis.annotate(
                    encoder, point, xytext=(4, 4), textcoords="offset points", fontsize="small"
                )
        axis.set(xscale="log", title=f"{budget} human labels")
        axis.set_xlabel(f"ms for an utterance of {N_TOKENS} tokens")
    axes[0][0].set_ylabel("macro-F1, mean over tasks")
    axes[0][0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        static_encoder(resolve_encoder(ENCODER)).save(str(work / "static"))
        encoders = {
            "static": {"encoder": str(work / "static")},
            **{f"{n} layers": {"encoder": ENCODER, "encoder_layers": n} for n in LAYERS},
        }
        plan = Plan(
            options.data_dir.resolve(), options.part, options.budgets, options.seeds, encoders
        )
        jobs = list(product(options.tasks, encoders))
        scores = all_qualities(jobs, plan, options.jobs)
        speed = speeds(options.tasks[0], plan, work)
        text = report(scores, speed, options)
    (options.out / "frontier.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
