"""Tables and plots of the results."""

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .baselines import BASELINES
from .intervals import DRAWS, Truth, differences
from .names import named
from .ours import OURS
from .run import read_predictions, read_results

__all__ = ["write_report"]

AT = "100"
BUDGETS = ["25", "50", "100", "200", "400", "all"]
HUMAN_ONLY = [
    "lr_human",
    "mlp_human",
    "mlp_human_layers",
    "default_human_only",
    "human_only",
    "setfit",
    "self_training",
]
MEASURES = {"macro_f1": "Macro-F1", "accuracy": "Accuracy", "brier": "Brier score"}
PLOTTED_BASELINES = 5
GIVEN_LAYERS = "_layers"  # ends the names of baselines that see more than sentence embeddings


def write_report(csv_path: Path, student: str, truth: dict[str, Truth]) -> str:
    """Write Markdown and plots of a student beside the CSV file.

    Parameters
    ----------
    csv_path : Path
        ``cells_<part>.csv``.
    student : {"frozen", "fine-tuned"}
    truth : dict of Truth
        Tasks to tell of, in this order.

    Returns
    -------
    str
        The Markdown.
    """
    tasks = list(truth)
    results, predictions = read_results(csv_path), read_predictions(csv_path)
    chosen = results["task"].isin(tasks) & (results["student"] == student)
    results = results[chosen].assign(order=lambda d: d["task"].map(tasks.index))
    results = results.sort_values("order", kind="stable")
    failed = results[results["error"] != ""]
    done = results[results["error"] == ""]
    part = csv_path.stem.removeprefix("cells_")
    stem = f"{student}_{part}"
    if len(tasks) == 1:
        stem += f"_{tasks[0]}"
    sections = []
    if len(done):
        at = AT if AT in set(done["budget"]) else _by_size(done["budget"].unique())[0]
        sections += [
            *(_at_budget(done, at, measure) for measure in MEASURES),
            _by_budget(done, at),
            *_leads(done, predictions, truth, at, OURS[student]),
            _labels_needed(done),
            _useless_teacher(done, at),
        ]
        if done["budget"].nunique() > 1 and plot(done, csv_path.parent / f"{stem}.png", at):
            picture = f"![Macro-F1 against human labels]({stem}.png)"
            sections.append(Section("plot", "Plot", picture))
        methods = [f"- `{name}`: {named(name)}" for name in done["method"].unique()]
        sections.append(Section("methods", "Methods, as --methods takes them", "\n".join(methods)))
    if len(failed):
        sections.append(_failures(failed))
    machine = platform.processor() or platform.machine()
    head = f"# {student.capitalize()} student, {part} dialogues"
    foot = f"{machine}, {time.strftime('%Y-%m-%d')}"
    text = "\n\n".join([head, *(str(s) for s in sections if s.body), foot]) + "\n"
    csv_path.parent.mkdir(parents=True, exist_ok=True)
    (csv_path.parent / f"{stem}.md").write_text(text)
    return text


@dataclass
class Section:
    """A part of the report; the user guide includes some by the marks around their bodies."""

    name: str
    title: str
    body: str

    def __str__(self) -> str:
        begin, end = (f"<!-- {word} {self.name} -->" for word in ("begin", "end"))
        return f"## {self.title}\n\n{begin}\n\n{self.body}\n\n{end}"


def markdown(frame: pd.DataFrame) -> str:
    """A table of strings, with its index as the first column."""
    head = [frame.index.name or "", *map(str, frame.columns)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        "| " + " | ".join([str(name), *map(str, row)]) + " |"
        for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    return "\n".join(lines)


def _by_size(budgets) -> list[str]:
    return sorted(budgets, key=lambda text: (text == "all", int(text) if text != "all" else 0))


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f}".replace("0.", ".", 1)


def _at_budget(done: pd.DataFrame, at: str, measure: str) -> Section:
    """Methods × tasks: mean ± deviation over seeds, and the mean over tasks."""
    part = done[done["budget"] == at]
    by = part.groupby(["method", "task"], sort=False)[measure]
    mean, deviation = by.mean().unstack(), by.std().unstack()
    order = part["task"].unique()
    mean, deviation = mean[order], deviation[order]
    table = pd.DataFrame(index=mean.index)
    for task in order:
        table[task] = [
            _number(m) if pd.isna(s) else f"{_number(m)} ± {_number(s)}"
            for m, s in zip(mean[task], deviation[task], strict=True)
        ]
    average = mean.mean(axis=1, skipna=False)
    table["mean"] = average.map(_number)
    table["seeds"] = part.groupby("method")["seed"].nunique().reindex(table.index)
    table["seconds"] = part.groupby("method")["seconds"].median().round(1).reindex(table.index)
    table = table.loc[average.sort_values(ascending=measure == "brier").index]
    table = table.rename(index=named).rename_axis("trained by")
    title = f"{MEASURES[measure]} at {at} human labels"
    return Section(measure, title, markdown(table) + _rows_note(part))


def _rows_note(part: pd.DataFrame) -> str:
    votes = part[part["method"] == "llm_votes"].groupby("task", sort=False)["n_rows"].first()
    rows = part[part["method"] != "llm_votes"].groupby("task", sort=False)["n_rows"].first()
    fewer = [
        f"{task} {int(votes[task])} of {int(rows[task])}"
        for task in votes.index
        if task in rows and votes[task] < rows[task]
    ]
    return (
        f"\n\nThe LLM's own labels are scored on the rows that have one: {', '.join(fewer)}."
        * bool(fewer)
    )


def baselines(frame: pd.DataFrame) -> pd.DataFrame:
    """Results of the baselines; the LLM itself is no student."""
    known = {name for methods in BASELINES.values() for name in methods} - {"llm_votes"}
    return frame[frame["method"].isin(known)]


def best_baseline(done: pd.DataFrame, at: str) -> str | None:
    """The baseline with the best macro-F1, mean over tasks: the same one for all."""
    part = baselines(done[done["budget"] == at])
    means = part.groupby(["method", "task"])["macro_f1"].mean().unstack()
    means = means.mean(axis=1, skipna=False).dropna()
    return None if means.empty else means.idxmax()


def _by_budget(done: pd.DataFrame, at: str) -> Section:
    """Budgets × tasks: the default, and the best others of some kinds."""
    means = done.groupby(["method", "budget", "task"], sort=False)["macro_f1"].mean()
    means = means.unstack("task")
    single = best_baseline(done, at)
    kinds = {
        named("default"): ["default"],
        named(single or ""): [single],
        "best others that are not given layers, of each task": [
            name
            for name in baselines(done)["method"].unique()
            if name not in HUMAN_ONLY and not name.endswith(GIVEN_LAYERS)
        ],
        "best on human labels only, of each task": HUMAN_ONLY,
    }
    rows = {}
    for budget in _by_size(done["budget"].unique()):
        for kind, methods in kinds.items():
            there = [(name, budget) for name in methods if (name, budget) in means.index]
            if there:
                best = means.loc[there].max()
                rows[f"{budget}, {kind}"] = [*map(_number, best), _number(best.mean(skipna=False))]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*means.columns, "mean"])
    table.index.name = "human labels, trained by"
    return Section("budgets", "Macro-F1 by number of human labels", markdown(table))


def _leads(
    done: pd.DataFrame, predictions: dict, truth: dict[str, Truth], at: str, ours: dict
) -> list[Section]:
    """The default against each other method, a section for each measure."""
    return [
        Section(
            f"lead_{measure}",
            f"Lead of the default at {at} human labels, points of "
            f"{MEASURES[measure][0].lower()}{MEASURES[measure][1:]}",
            f"Mean over seeds, 95 % interval of {DRAWS:,} paired bootstrap draws of evaluation "
            f"dialogues.  The LLM's own labels: on the rows that have one.\n\n"
            f"{markdown(table.rename(index=named))}",
        )
        for measure, table in differences(done[done["budget"] == at], predictions, truth, ours)
    ]


def _labels_needed(done: pd.DataFrame) -> Section:
    """Where the default at b labels reaches the best human-only training at 4 b."""
    means = done.groupby(["method", "budget", "task"], sort=False)["macro_f1"].mean()
    means = means.unstack("task")
    known = means.index.get_level_values("method")
    pairs = [(b, str(4 * int(b))) for b in BUDGETS if b != "all" and str(4 * int(b)) in BUDGETS]
    rows = {}
    for task in means:
        answers, smallest = [], "none"
        for few, many in pairs:
            humans = [m for m in HUMAN_ONLY if m in known and (m, many) in means.index]
            if ("default", few) not in means.index or not humans:
                answers.append("–")
                continue
            ours = means.loc[("default", few), task]
            theirs = max(means.loc[(m, many), task] for m in humans)
            answers.append(f"{_number(ours)} / {_number(theirs)}")
            if ours >= theirs and smallest == "none":
                smallest = few
        rows[task] = [*answers, smallest]
    title = "Labels needed"
    if all(answer == "–" for row in rows.values() for answer in row[:-1]):
        return Section("labels_needed", title, "")
    columns = [*(f"{few} / {many}" for few, many in pairs), "smallest that reaches it"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    what = "Macro-F1 of the default at b human labels / of the best human-only training at 4 b."
    return Section("labels_needed", title, f"{what}\n\n{markdown(table)}")


def _useless_teacher(done: pd.DataFrame, at: str) -> Section:
    part = done[(done["budget"] == at)]
    part = part[part["method"].isin(["default_shuffled", *HUMAN_ONLY])]
    title = f"Useless teacher, {at} human labels"
    if "default_shuffled" not in set(part["method"]):
        return Section("useless", title, "")
    table = part.groupby(["method", "task"], sort=False)["macro_f1"].mean().unstack("task")
    table = table.map(_number).rename(index=named)
    what = "Macro-F1 with the votes shuffled among the voted rows, beside human-only training."
    return Section("useless", title, f"{what}\n\n{markdown(table)}")


def _failures(failed: pd.DataFrame) -> Section:
    counted = failed.groupby(["method", "error"], sort=False)
    lines = [
        f"- `{method}` ({len(rows)} cells, {', '.join(rows['task'].unique())}): {error}"
        for (method, error), rows in counted
    ]
    return Section("failures", "Without a result", "\n".join(lines))


def plot(done: pd.DataFrame, path: Path, at: str) -> bool:
    """Macro-F1 against the number of human labels, a panel for each task."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    tasks = done["task"].unique()
    others = baselines(done[done["budget"] == at]).groupby("method")["macro_f1"].mean()
    names = others.sort_values(ascending=False).index[:PLOTTED_BASELINES].tolist()
    names += [name for name in HUMAN_ONLY[:2] if name in others and name not in names]
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(4 * len(tasks) + 1, 4.5), squeeze=False, layout="constrained"
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        for name in [*names, "default"]:
            rows = done[(done["task"] == task) & (done["method"] == name)]
            by = rows.groupby("budget")[["n_human", "macro_f1"]].mean().sort_values("n_human")
            style = {"color": "black", "linewidth": 2.5} if name == "default" else {}
            label = named(name).replace("*", "").replace("`", "")
            axis.plot(
                by["n_human"], by["macro_f1"], marker="o", markersize=3, label=label, **style
            )
        sizes = done[done["task"] == task].groupby("budget")["n_human"].mean().round().astype(int)
        axis.set(xscale="log", title=task, xlabel="human labels")
        axis.set_xticks(sizes, labels=sizes.astype(str), minor=False)
        axis.minorticks_off()
    axes[0][0].set_ylabel("macro-F1")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(2 * len(tasks), 4), fontsize="small"
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True
