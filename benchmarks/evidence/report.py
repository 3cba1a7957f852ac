"""Tables and plots of the results."""

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .baselines import BASELINES
from .intervals import DRAWS, Truth, differences
from .names import named, named_task
from .run import KEPT, read_predictions, read_results
from .summary import plot_summary, summary_table

__all__ = ["write_report"]

HUMAN_ONLY = [
    "lr_human",
    "mlp_human",
    "mlp_human_layers",
    "default_human_only",
    "setfit",
    "self_training",
]
MEASURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
PLOTTED_BASELINES = 5
MISSING_TASKS = "methods without all tasks come last, by the mean of those they have"
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
    done = done.assign(both=done[list(MEASURES)].mean(axis=1))
    part = csv_path.stem.removeprefix("cells_")
    stem = f"{student}_{part}"
    if len(tasks) == 1:
        stem += f"_{tasks[0]}"
    sections = []
    if len(done):
        sizes = _by_size(done["budget"].unique())
        budgets = [size for size in sizes if size in map(str, KEPT)] or sizes[:1]
        first = budgets[0]
        sections += [_summary(done, first), *(_at_budget(done, size) for size in budgets)]
        for size in budgets:
            sections += _leads(done, predictions, truth, size)
        sections += [
            _by_budget(done, first),
            _n_human(done),
            _useless_teacher(done, first),
            _brier(done, first),
        ]
        plot_summary(done, csv_path.parent / f"summary_{stem}.png", first)
        if len(sizes) > 1 and plot(done, csv_path.parent / f"{stem}.png", first):
            picture = f"![Accuracy and macro-F1 against human labels]({stem}.png)"
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
    head = [frame.index.name or "", *(named_task(str(column)) for column in frame.columns)]
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


def _means(done: pd.DataFrame, by: str) -> dict[str, pd.DataFrame]:
    """Accuracy, macro-F1 and the mean of both over seeds, by task and over the tasks."""
    rows, tasks = done[by].unique(), done["task"].unique()
    means = {}
    for kind in (*MEASURES, "both"):
        table = done.groupby([by, "task"])[kind].mean().unstack("task").loc[rows, tasks]
        means[kind] = table.assign(mean=table.mean(axis=1, skipna=False))
    return means


def _pairs(means: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Strings "accuracy / macro-F1", and the mean of both over the tasks."""
    accuracy, macro_f1, both = means.values()
    table = accuracy.map(_number) + " / " + macro_f1.map(_number)
    return table.assign(**{"mean of both": both["mean"].map(_number)})


def _summary(done: pd.DataFrame, budget: str) -> Section:
    """The methods that matter, their means over the tasks and the spread over seeds."""
    table = summary_table(done, budget)
    body = markdown(table) if len(table) > 1 else ""
    return Section("summary", f"Summary at {budget} human labels", body)


def _at_budget(done: pd.DataFrame, budget: str) -> Section:
    """Methods × tasks, in the order of ``_sorted``."""
    part = done[done["budget"] == budget]
    means = _means(part, "method")
    of_method = part.groupby("method")
    table = _pairs(means).assign(
        seeds=of_method["seed"].nunique(), seconds=of_method["seconds"].median().round(1)
    )
    table = table.loc[_sorted(means["both"])].rename(index=named).rename_axis("trained by")
    what = (
        "Accuracy / macro-F1, mean over seeds; seconds of one core for a fit. Rows are sorted by "
        f"the mean of both, the best first; {MISSING_TASKS}."
    )
    body = f"{what}\n\n{markdown(table)}{_rows_note(part)}"
    return Section(f"results_{budget}", f"Accuracy and macro-F1 at {budget} human labels", body)


def _brier(done: pd.DataFrame, budget: str) -> Section:
    part = done[done["budget"] == budget]
    means = part.groupby(["method", "task"], sort=False)["brier"].mean().unstack("task")
    means = means.assign(mean=means.mean(axis=1, skipna=False))
    means = means.loc[_sorted(-means)]
    table = means.map(_number).rename(index=named).rename_axis("trained by")
    what = f"Rows are sorted by the mean, the best (lowest) first; {MISSING_TASKS}."
    title = f"Brier score at {budget} human labels"
    return Section("brier", title, f"{what}\n\n{markdown(table)}")


def _sorted(means: pd.DataFrame) -> pd.Index:
    """Methods by falling mean over the tasks; those without all tasks last, by what they have."""
    keys = pd.DataFrame({"some": means["mean"].isna(), "mean": -means.mean(axis=1)})
    return keys.sort_values(["some", "mean"], kind="stable").index


def _n_human(done: pd.DataFrame) -> Section:
    """How many labels the whole dialogues of each budget have."""
    by = done.groupby(["budget", "task"], sort=False)["n_human"].agg(["min", "mean", "max"])
    cells = [f"{mean:.0f} ({low:.0f} to {high:.0f})" for low, mean, high in by.to_numpy()]
    table = pd.Series(cells, by.index).unstack("task", fill_value="–")
    table = table.loc[_by_size(table.index), done["task"].unique()].rename_axis("asked for")
    what = (
        "Those of whole dialogues, drawn until there are enough; mean over seeds and range. Rows "
        "are sorted by budget."
    )
    return Section("n_human", "Number of human labels", f"{what}\n\n{markdown(table)}")


def _rows_note(part: pd.DataFrame) -> str:
    votes = part[part["method"] == "llm_votes"].groupby("task", sort=False)["n_rows"].first()
    rows = part[part["method"] != "llm_votes"].groupby("task", sort=False)["n_rows"].first()
    fewer = [
        f"{named_task(task)} {int(votes[task])} of {int(rows[task])}"
        for task in votes.index
        if task in rows and votes[task] < rows[task]
    ]
    return (
        f"\n\nThe LLM's own labels are scored on the rows that have one: {', '.join(fewer)}."
        * bool(fewer)
    )


def baselines(frame: pd.DataFrame) -> pd.DataFrame:
    """Results of the baselines, without the LLM's own labels."""
    known = {name for methods in BASELINES.values() for name in methods} - {"llm_votes"}
    return frame[frame["method"].isin(known)]


def best_baseline(done: pd.DataFrame, budget: str) -> str | None:
    """The baseline with the best mean of accuracy and macro-F1 over all tasks."""
    part = baselines(done[done["budget"] == budget])
    means = _means(part, "method")["both"]["mean"].dropna()
    return None if means.empty else means.idxmax()


def _by_budget(done: pd.DataFrame, first: str) -> Section:
    """Budgets × tasks: the default, and the best others of some kinds."""
    single = best_baseline(done, first)
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
    parts = []
    for budget in _by_size(done[done["method"] == "default"]["budget"].unique()):
        for kind, methods in kinds.items():
            part = done[(done["budget"] == budget) & done["method"].isin(methods)]
            parts.append(_best_of_each_task(part).assign(row=f"{budget}, {kind}"))
    rows, title = pd.concat(parts), "Accuracy / macro-F1 by number of human labels"
    if rows.empty:
        return Section("budgets", title, "")
    table = _pairs(_means(rows, "row")).rename_axis("human labels, trained by")
    return Section("budgets", title, f"Rows are sorted by budget.\n\n{markdown(table)}")


def _best_of_each_task(part: pd.DataFrame) -> pd.DataFrame:
    """The results of the method with the highest mean of both, for each task."""
    means = part.groupby(["task", "method"])["both"].mean()
    best = means.groupby("task").idxmax()
    return part[pd.MultiIndex.from_frame(part[["task", "method"]]).isin(best)]


def _leads(
    done: pd.DataFrame, predictions: dict, truth: dict[str, Truth], budget: str
) -> list[Section]:
    """The default against each other method, a section for each measure."""
    return [
        Section(
            f"lead_{measure}_{budget}",
            f"Lead of the default at {budget} human labels, points of {MEASURES[measure]}",
            f"Mean over seeds, 95 % interval of {DRAWS:,} paired bootstrap draws of evaluation "
            f"dialogues. The LLM's own labels: on the rows that have one. Rows are sorted by the "
            f"mean lead, the largest first; {MISSING_TASKS}.\n\n"
            f"{markdown(table.rename(index=named))}",
        )
        for measure, table in differences(done[done["budget"] == budget], predictions, truth)
    ]


def _useless_teacher(done: pd.DataFrame, budget: str) -> Section:
    part = done[(done["budget"] == budget)]
    part = part[part["method"].isin(["default_shuffled", *HUMAN_ONLY])]
    title = f"Useless teacher, {budget} human labels"
    if "default_shuffled" not in set(part["method"]):
        return Section("useless", title, "")
    means = _means(part, "method")
    table = _pairs(means).loc[_sorted(means["both"])].rename(index=named)
    what = (
        "Accuracy / macro-F1 with the LLM labels shuffled, beside training on human labels only. "
        f"Rows are sorted by the mean of both, the best first; {MISSING_TASKS}."
    )
    return Section("useless", title, f"{what}\n\n{markdown(table)}")


def _failures(failed: pd.DataFrame) -> Section:
    counted = failed.groupby(["method", "error"], sort=False)
    lines = []
    for (method, error), rows in counted:
        tasks = ", ".join(map(named_task, rows["task"].unique()))
        lines.append(f"- `{method}` ({len(rows)} cells, {tasks}): {error}")
    return Section("failures", "Without a result", "\n".join(lines))


def plot(done: pd.DataFrame, path: Path, budget: str) -> bool:
    """Accuracy and macro-F1 against the number of human labels, a column for each task."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    tasks = done["task"].unique()
    others = baselines(done[done["budget"] == budget]).groupby("method")["both"].mean()
    names = others.sort_values(ascending=False).index[:PLOTTED_BASELINES].tolist()
    names += [name for name in HUMAN_ONLY[:2] if name in others and name not in names]
    figure, axes = plt.subplots(
        2, len(tasks), figsize=(3.5 * len(tasks) + 1, 7), squeeze=False, layout="constrained"
    )
    for row, measure in zip(axes, MEASURES, strict=True):
        for axis, task in zip(row, tasks, strict=True):
            _panel(axis, done[done["task"] == task], measure, [*names, "default"])
            axis.set(title=named_task(task), xlabel="human labels")
        row[0].set_ylabel(MEASURES[measure])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(2 * len(tasks), 4), fontsize="small"
    )
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return True


def _panel(axis, done: pd.DataFrame, measure: str, names: list[str]) -> None:
    for name in names:
        by = done[done["method"] == name].groupby("budget")[["n_human", measure]].mean()
        by = by.sort_values("n_human")
        style = {"color": "black", "linewidth": 2.5} if name == "default" else {}
        label = named(name).replace("*", "").replace("`", "")
        axis.plot(by["n_human"], by[measure], marker="o", markersize=3, label=label, **style)
    sizes = done.groupby("budget")["n_human"].mean().round().astype(int).unique()
    axis.set_xscale("log")
    axis.set_xticks(sizes, labels=sizes.astype(str), minor=False)
    axis.minorticks_off()
