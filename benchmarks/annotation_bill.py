"""Tokens and cost of labelling whole dialogues, by how many utterances a call asks about.

A local server (``tests/fake_llm.py``) counts the tokens of what it is really sent, and has a cache
of prompts as endpoints do. The utterances of two speakers are made up, of 48 characters in the
mean, as in SGD, MELD, DeliData and Switchboard (37 to 51; Persuasion for Good: 89). Eight prompts,
each with three earlier turns where a call asks about one utterance.

    python benchmarks/annotation_bill.py
"""

import argparse
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from sklearn_dialpref import LLMAnnotator, PromptBank

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from fake_llm import FakeLLM

CLASSES = ["complaint", "question", "thanks", "other"]
DEFINITIONS = {
    "complaint": "the speaker is not content with something, or reports that it does not work",
    "question": "the speaker wants to know something",
    "thanks": "the speaker thanks, or is content",
    "other": "none of these",
}
PRICES = (0.40, 1.60, 0.10)  # of a million tokens in, out, and in from the endpoint's cache
BATCH_SHARE = 0.5  # of the price, by the batch interface
TALK = (
    "I you we they it the a my your order parcel bill account card delivery driver address phone "
    "was is has been not never still again today yesterday twice late wrong broken missing paid "
    "sent called asked told waiting want need know think hope please sorry really maybe because "
    "when where how much long and but so if at on for with about from to back in"
)


def utterances(n_dialogues: int, n_turns: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = n_dialogues * n_turns
    label = rng.choice(CLASSES, n)
    words = [" ".join(rng.choice(TALK.split(), rng.integers(2, 15))) for _ in range(n)]
    text = [f"{one} {word}" for one, word in zip(words, label, strict=True)]
    ids = np.arange(n) // n_turns
    speaker = np.where(np.arange(n) % 2, "customer", "agent")
    return pd.DataFrame(
        {"dialogue_id": ids, "turn": np.arange(n), "speaker": speaker, "text": text}
    )


def bank(stretches: bool) -> PromptBank:
    prompts = PromptBank.default("the purpose", CLASSES, DEFINITIONS, stretches=stretches)
    if stretches:
        return prompts
    return PromptBank([replace(one, context_turns=3, look_ahead=0) for one in prompts])


def bill(X: pd.DataFrame, per_call: int | str, scoring: str, prefix_tokens: int) -> dict:
    with FakeLLM(prefix_tokens=prefix_tokens) as server:
        teacher = LLMAnnotator(
            CLASSES, "tiny", prompts=bank(per_call != 1), base_url=server.base_url, cache=None,
            utterances_per_call=per_call, scoring=scoring, prices=PRICES, concurrency=8,
        ).fit(X)  # fmt: skip
        estimated = teacher.estimate_cost(X)
        teacher.predict_proba(X)
        usage = teacher.usage_
    assert server.tokens_in == usage["tokens_in"] and not usage["failed"]
    return {"per_call": per_call, "scoring": scoring, **usage, "estimated": estimated.cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dialogues", type=int, default=200)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--prefix-tokens", type=int, default=64, help="smallest cached beginning")
    options = parser.parse_args()
    X = utterances(options.dialogues, options.turns)
    length = X["text"].str.len().mean()
    print(
        f"{options.dialogues} dialogues of {options.turns} turns ({length:.0f} characters in "
        f"the mean), 8 prompts; prices of a million tokens {PRICES[0]} in, "
        f"{PRICES[1]} out, {PRICES[2]} in from the cache of prompts\n"
    )
    print(
        "| utterances per call | scoring | calls | tokens in | of them cached | tokens out | "
        "tokens, share | cost without cache | cost, share | by batch, share |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    first = None
    for per_call, scoring in [(1, "auto"), (5, "auto"), (10, "auto"), ("dialogue", "auto"),
                              ("dialogue", "schema")]:  # fmt: skip
        used = bill(X, per_call, scoring, options.prefix_tokens)
        tokens = used["tokens_in"] + used["tokens_out"]
        full = (used["tokens_in"] * PRICES[0] + used["tokens_out"] * PRICES[1]) / 1e6
        first = first or (tokens, full)
        print(
            f"| {per_call} | {scoring} | {used['calls']} | {used['tokens_in']:,} | "
            f"{used['tokens_cached'] / used['tokens_in']:.0%} | {used['tokens_out']:,} | "
            f"1/{first[0] / tokens:.1f} | {full:.3f} | 1/{first[1] / used['cost']:.1f} | "
            f"1/{first[1] / (BATCH_SHARE * used['cost']):.1f} |",
            flush=True,
        )
    print(f"\n{platform.processor() or platform.machine()}, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
