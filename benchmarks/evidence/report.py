"""Tables and plots of the results."""

import platform
import time
from pathlib import Path

import pandas as pd

from .intervals import DRAWS, differences
from .opponents import OPPONENTS
from .ours import OURS
from .run import read_results

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
PLOTTED_OPPONENTS = 5


def write_report(csv_path: Path, student: str, tasks: list[str]) -> str:
    """Write Markdown and plots of a student beside the CSV file.

    Parameters
    ----------
    csv_path : Path
        ``cells_<part>.csv``.
    student : {"frozen", "fine-tuned"}
    tasks : list of str
        Tasks to tell of, in this order.

    Returns
    -------
    str
        The Markdown.
    """
    results = read_results(csv_path)
    chosen = results["task"].isin(tasks) & (results["student"] == student)
    results = results[chosen].assign(order=lambda d: d["task"].map(tasks.index))
    results = results.sort_values("order", kind="stable")
    failed = results[results["error"] != ""]
    done = results[results["error"] == ""]
    part = csv_path.stem.removeprefix("cells_")
    stem = f"{student}_{part}"
    if len(tasks) == 1:
        stem += f"_{tasks[0]}"
    sections = [f"# {student.capitalize()} student, {part} dialogues"]
    if len(done):
        at = AT if AT in set(done["budget"]) else _by_size(done["budget"].unique())[0]
        sections += [
            *(_at_budget(done, at, measure) for measure in MEASURES),
            _by_budget(done, at),
            *_leads(done, at, OURS[student]),
            _labels_needed(done),
            _useless_teacher(done, at),
        ]
        if plot(done, csv_path.parent / f"{stem}.png", at):
            sections.append(f"![Macro-F1 against human labels]({stem}.png)")
    if len(failed):
        sections.append(_failures(failed))
    machine = platform.processor() or platform.machine()
    sections.append(f"{machine}, {time.strftime('%Y-%m-%d')}")
    text = "\n\n".join(section for section in sections if section) + "\n"
    csv_path.parent.mkdir(parents=True, exist_ok=True)
    (csv_path.parent / f"{stem}.md").write_text(text)
    return text


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


def _at_budget(done: pd.DataFrame, at: str, measure: str) -> str:
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
    return f"## {MEASURES[measure]} at {at} human labels\n\n{markdown(table)}{_rows_note(part)}"


def _rows_note(part: pd.DataFrame) -> str:
    votes = part[part["method"] == "llm_votes"].groupby("task", sort=False)["n_rows"].first()
    rows = part[part["method"] != "llm_votes"].groupby("task", sort=False)["n_rows"].first()
    fewer = [
        f"{task} {int(votes[task])} of {int(rows[task])}"
        for task in votes.index
        if task in rows and votes[task] < rows[task]
    ]
    return f"\n\n`llm_votes` is scored on the rows with a vote: {', '.join(fewer)}." * bool(fewer)


def opponents(frame: pd.DataFrame) -> pd.DataFrame:
    """Results of the opponents; the LLM itself is no student."""
    known = {name for methods in OPPONENTS.values() for name in methods} - {"llm_votes"}
    return frame[frame["method"].isin(known)]


def best_opponent(done: pd.DataFrame, at: str) -> str | None:
    """The opponent with the best macro-F1, mean over tasks: the same one for all."""
    part = opponents(done[done["budget"] == at])
    means = part.groupby(["method", "task"])["macro_f1"].mean().unstack()
    means = means.mean(axis=1, skipna=False).dropna()
    return None if means.empty else means.idxmax()


def _by_budget(done: pd.DataFrame, at: str) -> str:
    """Budgets × tasks: the default, the best opponent at ``at``, and the best of each cell."""
    means = done.groupby(["method", "budget", "task"], sort=False)["macro_f1"].mean()
    means = means.unstack("task")
    single = best_opponent(done, at)
    rows = {}
    for budget in _by_size(done["budget"].unique()):
        for name in ("default", single):
            if (name, budget) in means.index:
                row = means.loc[(name, budget)]
                rows[f"{budget}, {name}"] = [*row.map(_number), _number(row.mean(skipna=False))]
        others = opponents(done[done["budget"] == budget])
        if others.empty:
            continue
        cells = others.groupby(["method", "task"])["macro_f1"].mean().unstack("task")
        cells = cells.reindex(columns=means.columns)
        rows[f"{budget}, best opponent of each"] = [
            *(
                "–"
                if cells[task].isna().all()
                else f"{_number(cells[task].max())} ({cells[task].idxmax()})"
                for task in cells
            ),
            _number(cells.max().mean(skipna=False)),
        ]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*means.columns, "mean"])
    table.index.name = "human labels, method"
    return f"## Macro-F1 by number of human labels\n\n{markdown(table)}"


def _leads(done: pd.DataFrame, at: str, ours: dict) -> list[str]:
    """The default against each other method, a section for each measure."""
    return [
        f"## Lead of the default at {at} human labels, points of "
        f"{MEASURES[measure][0].lower()}{MEASURES[measure][1:]}\n\n"
        f"Mean over seeds, 95 % interval of {DRAWS:,} paired bootstrap draws of evaluation "
        f"dialogues.  `llm_votes`: on the rows with a vote.\n\n{markdown(table)}"
        for measure, table in differences(done[done["budget"] == at], ours)
    ]


def _labels_needed(done: pd.DataFrame) -> str:
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
    if all(answer == "–" for row in rows.values() for answer in row[:-1]):
        return ""
    columns = [*(f"{few} / {many}" for few, many in pairs), "smallest that reaches it"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return (
        "## Labels needed\n\nMacro-F1 of the default at b human labels / of the best human-only "
        f"training at 4 b.\n\n{markdown(table)}"
    )


def _useless_teacher(done: pd.DataFrame, at: str) -> str:
    part = done[(done["budget"] == at)]
    part = part[part["method"].isin(["default_shuffled", *HUMAN_ONLY])]
    if "default_shuffled" not in set(part["method"]):
        return ""
    table = part.groupby(["method", "task"], sort=False)["macro_f1"].mean().unstack("task")
    return (
        f"## Useless teacher, {at} human labels\n\nMacro-F1 with the votes shuffled among the "
        f"voted rows, beside human-only training.\n\n{markdown(table.map(_number))}"
    )


def _failures(failed: pd.DataFrame) -> str:
    counted = failed.groupby(["method", "error"], sort=False)
    lines = [
        f"- `{method}` ({len(rows)} cells, {', '.join(rows['task'].unique())}): {error}"
        for (method, error), rows in counted
    ]
    return "## Without a result\n\n" + "\n".join(lines)


def plot(done: pd.DataFrame, path: Path, at: str) -> bool:
    """Macro-F1 against the number of human labels, a panel for each task."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    tasks = done["task"].unique()
    others = opponents(done[done["budget"] == at]).groupby("method")["macro_f1"].mean()
    names = others.sort_values(ascending=False).index[:PLOTTED_OPPONENTS].tolist()
    names += [name for name in HUMAN_ONLY[:2] if name in others and name not in names]
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(4 * len(tasks) + 1, 4.5), squeeze=False, layout="constrained"
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        for name in [*names, "default"]:
            rows = done[(done["task"] == task) & (done["method"] == name)]
            by = rows.groupby("budget")[["n_human", "macro_f1"]].mean().sort_values("n_human")
            style = {"color": "black", "linewidth": 2.5} if name == "default" else {}
            axis.plot(by["n_human"], by["macro_f1"], marker="o", markersize=3, label=name, **style)
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
