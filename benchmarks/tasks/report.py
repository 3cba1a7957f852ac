"""Tables of the results."""

from dataclasses import asdict

import numpy as np
import pandas as pd

from benchmarks.bootstrap import dialogue_weights, lead_with_interval

from .data import Problem, known
from .run import Result, measures
from .simulated import Simulator, typical_profile

__all__ = ["profile_table", "task_table", "votes_table"]

HEADINGS = {
    "kappa": "kappa with people",
    "class_bias": "bias of classes",
    "rarity": "rarity of what is said",
    "dialogue_share": "between dialogues",
    "agreement": "kappa of two LLMs",
}


def task_table(problem: Problem, fits: list[Result], machine: str) -> str:
    """Markdown: each budget and method with mean ± deviation over seeds and costs.

    And the lead of the last method over each of the others.

    Parameters
    ----------
    problem : Problem
    fits : list of Result
    machine : str

    Returns
    -------
    str
    """
    weights = dialogue_weights(len(fits[0].counts))
    rows = []
    for budget in sorted({result.budget for result in fits}):
        results = {
            (result.method, result.seed): result for result in fits if result.budget == budget
        }
        methods = list(dict.fromkeys(method for method, _ in results))
        seeds = sorted({seed for _, seed in results})
        drawn = {
            key: measures(problem.kind, np.tensordot(weights, result.counts, axes=1))
            for key, result in results.items()
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
            row["seconds"] = f"{np.mean([results[method, seed].seconds for seed in seeds]):.1f}"
            row["MB"] = f"{np.mean([results[method, seed].megabytes for seed in seeds]):.0f}"
            rows.append(row)
    n_test = int(known(problem.y_test).sum())
    about = (
        f"{fits[0].n_llm} utterances that the LLM labelled, {n_test} in test; {len(seeds)} "
        "seeds; leads in points with 95 % intervals of a bootstrap over the "
        f"{len(fits[0].counts)} test dialogues, human labels and votes as they are; "
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
    table = table.rename(columns=HEADINGS)
    return f"# Errors of real LLMs\n\n{table.round(3).to_markdown()}\n\n{machine}\n"


def votes_table(simulator: Simulator) -> str:
    """Markdown: the errors that the simulated votes have, beside those asked for."""
    if not simulator.reached:
        return ""
    reached = typical_profile(pd.DataFrame([asdict(one) for one in simulator.reached]))
    table = pd.DataFrame({"asked": asdict(simulator.goal), "reached": asdict(reached)}).T
    return f"\n## The simulated votes\n\n{table.rename(columns=HEADINGS).round(3).to_markdown()}\n"
