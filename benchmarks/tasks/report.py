"""Tables of the results."""

import numpy as np
import pandas as pd

from benchmarks.bootstrap import dialogue_weights, lead_with_interval

from .data import Problem, known
from .run import Result, measures

__all__ = ["profile_table", "task_table"]


def task_table(problem: Problem, found: list[Result], n_llm: int, machine: str) -> str:
    """Markdown: each budget and method with mean ± deviation over seeds and costs.

    And the lead of the last method over each of the others.

    Parameters
    ----------
    problem : Problem
    found : list of Result
    n_llm : int
        Utterances with a label of the LLM.
    machine : str

    Returns
    -------
    str
    """
    weights = dialogue_weights(len(found[0].counts))
    rows = []
    for budget in sorted({result.budget for result in found}):
        at = {(result.method, result.seed): result for result in found if result.budget == budget}
        methods = list(dict.fromkeys(method for method, _ in at))
        seeds = sorted({seed for _, seed in at})
        drawn = {
            key: measures(problem.kind, np.tensordot(weights, result.counts, axes=1))
            for key, result in at.items()
        }
        for method in methods:
            row: dict[str, object] = {"human labels": budget, "method": method}
            for measure in next(iter(drawn.values())):
                values = [drawn[method, seed][measure][0] for seed in seeds]
                row[measure] = (
                    f"{np.mean(values):.3f} ± {np.std(values, ddof=min(1, len(values) - 1)):.3f}"
                )
                row[f"{methods[-1]} −, {measure}"] = (
                    ""
                    if method == methods[-1]
                    else _lead(drawn, methods[-1], method, seeds, measure)
                )
            row["seconds"] = f"{np.mean([at[method, seed].seconds for seed in seeds]):.1f}"
            row["MB"] = f"{np.mean([at[method, seed].megabytes for seed in seeds]):.0f}"
            rows.append(row)
    n_test = int(known(problem.y_test).sum())
    about = (
        f"{n_llm} utterances that the LLM labelled, {n_test} in test; {len(seeds)} seeds; leads "
        f"in points with 95 % intervals of a bootstrap over the {len(found[0].counts)} test "
        "dialogues, human labels and votes as they are; "
        "seconds of processor time and highest memory of the process in fit, texts embedded "
        f"before. {machine}"
    )
    table = pd.DataFrame(rows).to_markdown(index=False)
    marked = f"<!-- begin table -->\n\n{table}\n\n<!-- end table -->"
    return f"# {problem.name}\n\n{marked}\n\n{about}\n"


def _lead(drawn: dict, ours: str, other: str, seeds: list[int], measure: str) -> str:
    leads = [drawn[ours, seed][measure] - drawn[other, seed][measure] for seed in seeds]
    return lead_with_interval(100 * np.mean(leads, axis=0))


def profile_table(measured: pd.DataFrame, machine: str) -> str:
    """Markdown: how real LLMs erred, which the simulated votes follow in the mean."""
    table = pd.concat([measured, measured.mean().rename("mean: simulated").to_frame().T])
    table.columns = [
        "kappa with people",
        "bias of classes",
        "rarity of what is said",
        "between dialogues",
        "kappa of two LLMs",
    ]
    return f"# Errors of real LLMs\n\n{table.round(3).to_markdown()}\n\n{machine}\n"
