"""What is not to be timed: imports, and counting what an encoder is given."""

from dataclasses import dataclass

import torch

__all__ = ["Counts", "count_encoded", "import_all"]


@dataclass
class Counts:
    """Texts and tokens, without padding, that went through any encoder of this process."""

    texts: int = 0
    tokens: int = 0


def count_encoded() -> Counts:
    """Begin to count, until the process ends."""
    from sentence_transformers import SentenceTransformer

    counts, forward = Counts(), SentenceTransformer.forward

    def counted(model, features, *args, **options):
        ids = features["input_ids"]
        mask = features.get("attention_mask")
        counts.texts += len(features["offsets"] if mask is None else ids)
        counts.tokens += int(torch.numel(ids) if mask is None else mask.sum())
        return forward(model, features, *args, **options)

    SentenceTransformer.forward = counted
    return counts


def import_all() -> None:
    """Import what a fit imports on its way, torch's compiler among it."""
    import sentence_transformers  # noqa: F401
    import torch._dynamo  # noqa: F401

    from sklearn_dialpref._training import fit, net  # noqa: F401
