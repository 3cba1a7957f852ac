"""The methods that matter, in one table and one chart."""

from pathlib import Path

import pandas as pd

__all__ = ["plot_summary", "summary_table"]

# what a reader would use instead, in words that need no other page
COMPARED = {
    "default": "this package's default",
    "distillation_then_human_layers": "distillation, then human labels, on our features",
    "llm_votes": "the LLM itself, asked about every utterance",
    "distillation_then_human": "distillation, then human labels",
    "forward_correction": "forward-corrected distillation, then human labels",
    "default_human_only": "our student, human labels only",
    "lr_union": "embeddings + logistic regression, both labels",
    "lr_human": "embeddings + logistic regression, human labels",
}
MEASURES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
NO_BREAK = "\N{NO-BREAK SPACE}"
COLORS = {"accuracy": "#0072b2", "macro_f1": "#d55e00"}  # told apart by the colour-blind


def _compared(done: pd.DataFrame, budget: str) -> pd.DataFrame:
    """Mean over tasks and spread over seeds of each method that has all tasks, the best first."""
    part = done[(done["budget"] == budget) & done["method"].isin(COMPARED)]
    rows = {}
    for method, cells in part.groupby("method"):
        if cells["task"].nunique() < part["task"].nunique():
            continue
        row = {"seconds": cells["seconds"].median()}
        for measure in MEASURES:
            of_seed = cells.pivot_table(index="seed", columns="task", values=measure)
            row[measure] = of_seed.mean().mean()
            row[f"{measure}_spread"] = of_seed.dropna().mean(axis=1).std()
        rows[method] = row
    means = pd.DataFrame.from_dict(rows, orient="index")
    if means.empty:
        return means
    return means.loc[means[list(MEASURES)].mean(axis=1).sort_values(ascending=False).index]


def _cell(mean: float, spread: float) -> str:
    cell = f"{mean:.3f}".replace("0.", ".", 1)
    if spread > 0:
        cell += f" ± {spread:.3f}".replace(" 0.", " .").replace(" ", NO_BREAK)
    return cell


def summary_table(done: pd.DataFrame, budget: str) -> pd.DataFrame:
    """A row for each method, the best first; means over tasks ± deviation over seeds.

    Parameters
    ----------
    done : DataFrame
        Results of one student.
    budget : str
        Number of human labels.

    Returns
    -------
    DataFrame of str
    """
    means = _compared(done, budget)
    if means.empty:
        return means
    table = pd.DataFrame(
        {
            name: [_cell(*pair) for pair in means[[measure, f"{measure}_spread"]].to_numpy()]
            for measure, name in MEASURES.items()
        },
        index=means.index,
    )
    seconds = [
        "–" if method == "llm_votes" else f"{value:.1f}"
        for method, value in means["seconds"].items()
    ]
    table = table.assign(**{"CPU seconds": seconds}).rename(index=COMPARED)
    ours = COMPARED["default"]
    return table.rename(index={ours: f"**{ours}**"}).rename_axis("trained by")


def plot_summary(done: pd.DataFrame, path: Path, budget: str) -> bool:
    """Draw the table: a line for each method, accuracy beside macro-F1."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    means = _compared(done, budget).iloc[::-1]
    if len(means) < 2:
        return False
    figure, axis = plt.subplots(figsize=(5.4, 5.2), layout="constrained")
    for line, (method, row) in enumerate(means.iterrows()):
        ours = method == "default"
        axis.annotate(
            COMPARED[method],
            (0, line + 0.3),
            xycoords=("axes fraction", "data"),
            weight="bold" if ours else "normal",
        )
        for measure in MEASURES:
            _point(axis, line, row[measure], row[f"{measure}_spread"], COLORS[measure])
    for measure, name in MEASURES.items():
        axis.plot([], [], "o", color=COLORS[measure], label=name)
    axis.set(yticks=[], xlabel=f"mean over {done['task'].nunique()} tasks, {budget} human labels")
    axis.set_ylim(-0.5, len(means) - 0.2)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=200)
    plt.close(figure)
    return True


def _point(axis, line: int, value: float, spread: float, color: str) -> None:
    """A mean with its spread, and its figure below."""
    axis.errorbar(value, line, xerr=spread, fmt="o", color=color, capsize=3, markersize=7)
    label = f"{value:.3f}".replace("0.", ".", 1)
    axis.annotate(
        label, (value, line), (0, -14), textcoords="offset points", ha="center", fontsize=9
    )
