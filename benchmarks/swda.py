"""Dialogue acts of Switchboard, trained on all human labels, on the 19 published test dialogues.

    python -m benchmarks.swda --data-dir DIR

Prints accuracy and macro-F1, seconds and peak memory. There are 192,390 training utterances: with
a fine-tuned encoder, an epoch takes about an hour on two cores, or minutes on a GPU. The published
accuracy of a hierarchical pretrained transformer is 79.2 %; people agree on 84 %. The results are
in benchmarks/results/tasks/swda.md.
"""

import argparse
import resource
import time
from pathlib import Path

import pandas as pd
from sklearn.metrics import f1_score

from benchmarks.evidence.data import add_data_option, read_table
from sklearn_dialpref import DialoguePreferenceClassifier, with_context


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_option(parser, without_fetcher=("swda",))
    parser.add_argument("--dialogues", type=int, help="random training dialogues; by default all")
    parser.add_argument("--trainable-layers", type=int, help="by default the whole encoder")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, help="by default the estimator's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turns", type=int, default=1, help="turns of context")
    parser.add_argument("--speakers", action="store_true", help="name them in the context")
    parser.add_argument("--parts", choices=["val", "test"], nargs="+", default=["test"])
    parser.add_argument("--save", type=Path, help="folder for the fitted classifier")
    return parser.parse_args()


def main() -> None:
    options = parse()
    data = read_table("swda", options.data_dir)
    data = data[data["text"].fillna("").str.strip() != ""]
    data = with_context(data, options.turns, speakers=options.speakers)
    train = data[data["split"] == "train"]
    if options.dialogues:
        ids = pd.Series(train["dialogue_id"].unique()).sample(options.dialogues, random_state=0)
        train = train[train["dialogue_id"].isin(ids)]
    clf = DialoguePreferenceClassifier(
        trainable_layers=options.trainable_layers,
        max_epochs=options.epochs,
        batch_size=options.batch_size or "auto",
        random_state=options.seed,
        verbose=1,
    )
    start = time.perf_counter()
    clf.fit(train, train["act"])
    seconds = time.perf_counter() - start
    if options.save:
        clf.save(options.save)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(train)} training utterances, {seconds:.0f} s, {peak:.0f} MB")
    for part in options.parts:
        rows = data[data["split"] == part]
        predicted = clf.predict(rows)
        accuracy = (predicted == rows["act"]).mean()
        macro_f1 = f1_score(rows["act"], predicted, average="macro", zero_division=0)
        print(f"{part}: {len(rows)} utterances, accuracy {accuracy:.4f}, macro-F1 {macro_f1:.4f}")


if __name__ == "__main__":
    main()
