"""Train SetFit or sentence-transformers on labelled texts, in an interpreter of its own.

    python benchmarks/training/their_fit.py JSON

It imports nothing of this repository. JSON names ``trainer`` ("setfit" or "triplets"), ``encoder``
(a folder), ``labelled`` and ``unseen`` (parquet files with ``text``, the first also ``code``),
``predicted`` (the file to write), ``seed`` and ``options`` of the trainer. The last line printed
is JSON: seconds of training, steps, versions.
"""

import json
import sys
import tempfile
import time
from importlib.metadata import version

import numpy as np
import pandas as pd

SETFIT_BATCH = 16  # pairs; its default
TRIPLET_BATCH = 32
PACKAGES = ("setfit", "sentence-transformers", "transformers", "torch", "datasets")
QUIET = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none"}


def setfit(model, texts: list[str], codes: list[int], seed: int, options: dict) -> dict:
    """Pairs of labelled texts, then logistic regression; ``options`` of TrainingArguments."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments
    from setfit.sampler import ContrastiveDataset
    from sklearn.linear_model import LogisticRegression

    n_pairs = len(
        ContrastiveDataset(
            texts,
            codes,
            multilabel=False,
            num_iterations=options.get("num_iterations"),
            sampling_strategy=options.get("sampling_strategy", "oversampling"),
        )
    )
    whole = SetFitModel(model_body=model, model_head=LogisticRegression())
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            batch_size=(SETFIT_BATCH, 2),
            seed=seed,
            show_progress_bar=False,
            **QUIET,
            **options,
        )
        data = Dataset.from_dict({"text": texts, "label": codes})
        trainer = Trainer(model=whole, args=arguments, train_dataset=data)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    state = trainer.st_trainer.state
    pairs_seconds = state.log_history[-1]["train_runtime"]  # without the regression
    steps = {"steps": state.global_step, "all_steps": -(-n_pairs // SETFIT_BATCH)}
    times = {"seconds": seconds, "pairs_seconds": pairs_seconds}
    return {**times, **steps, "predict": whole.predict}


def triplets(model, texts: list[str], codes: list[int], seed: int, options: dict) -> dict:
    """All triplets of a batch, then logistic regression; ``options`` of the arguments."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer as Trainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.losses import BatchAllTripletLoss
    from sklearn.linear_model import LogisticRegression

    with tempfile.TemporaryDirectory() as folder:
        arguments = Arguments(
            output_dir=folder,
            per_device_train_batch_size=TRIPLET_BATCH,
            batch_sampler="group_by_label",
            seed=seed,
            disable_tqdm=True,
            use_cpu=True,
            **QUIET,
            **options,
        )
        data = Dataset.from_dict({"sentence": texts, "label": codes})
        loss = BatchAllTripletLoss(model)
        trainer = Trainer(model=model, args=arguments, train_dataset=data, loss=loss)
        start = time.perf_counter()
        trainer.train()
        head = LogisticRegression(max_iter=1000).fit(_embedded(model, texts), codes)
        seconds = time.perf_counter() - start
    steps = {"steps": trainer.state.global_step, "all_steps": trainer.state.global_step}
    return {
        "seconds": seconds,
        **steps,
        "predict": lambda some: head.predict(_embedded(model, some)),
    }


def _embedded(model, texts: list[str]) -> np.ndarray:
    return model.encode(texts, show_progress_bar=False)


def main() -> None:
    from sentence_transformers import SentenceTransformer

    job = json.loads(sys.argv[1])
    labelled = pd.read_parquet(job["labelled"])
    unseen = pd.read_parquet(job["unseen"])["text"].tolist()
    train = {"setfit": setfit, "triplets": triplets}[job["trainer"]]
    model = SentenceTransformer(job["encoder"], device="cpu")
    texts, codes = labelled["text"].tolist(), labelled["code"].tolist()
    done = train(model, texts, codes, job["seed"], job["options"])
    if job["predicted"]:
        np.save(job["predicted"], np.asarray(done["predict"](unseen)))
    del done["predict"]
    print()
    print(json.dumps({**done, "versions": {name: version(name) for name in PACKAGES}}))


if __name__ == "__main__":
    main()
