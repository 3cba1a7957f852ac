"""Names of the methods and tasks in tables."""

__all__ = ["named", "named_task"]

SCHEDULES = {
    "pretrain_finetune": "then human labels",
    "joint": "jointly with human labels",
    "distill_then_joint": "after distillation, jointly with human labels",
}
TASK_NAMES = {
    "meld_sentiment": "MELD sentiment",
    "meld_emotion": "MELD emotion",
    "deli_type": "DeliData type",
    "deli_target": "DeliData target",
    "p4g_coarse": "P4G coarse",
    "p4g_strategy": "P4G fine",
    "talkmoves_bank": "talk moves, 19 votes",
    "talkmoves_gpt5": "talk moves, GPT-5",
}
LOSSES = {
    "noise_reduced": "noise-reduced pairs",
    "soft_cross_entropy": "distillation",
    "ranknet": "RankNet pairs",
    "margin_mse": "MarginMSE pairs",
    "robust": "robust pairs",
}
NAMES = {
    "default": "**default: distillation, then human labels as far as they prove right**",
    "default_and_pairs": "default, with noise-reduced pairs (`pair_weight=0.3`)",
    "default_and_heavy_pairs": "default, with noise-reduced pairs (`pair_weight=1`)",
    "former_two_rounds": "former default: two rounds",
    "former_one_round": "former one round: distillation, then all of the human stage",
    "default_human_only": "our student, human labels only",
    "default_shuffled": "default, LLM labels shuffled",
    "default_sentence_embedding": 'default on sentence embeddings (`pooling="model"`)',
    "default_one_llm": "default, one LLM only",
    "pairs_without_margin": "pairs without margin, then human labels",
    "pairs_constant_margin": "pairs with a constant margin, then human labels",
    "pairs_label_smoothing": "pairs with label smoothing, then human labels",
    "pairs_one_llm": "noise-reduced pairs of one LLM, then human labels",
    "pairs_across_dialogues": "noise-reduced pairs across dialogues, then human labels",
    "llm_votes": "the LLM's own labels",
    "lr_human": "logistic regression on human labels",
    "lr_llm": "logistic regression on LLM labels",
    "lr_union": "logistic regression on both",
    "cleanlab_union": "cleanlab's CleanLearning on both",
    "self_training": "self-training on human labels",
    "mlp_human": "small network on human labels",
    "mlp_human_layers": "small network on human labels, given layers",
    "distillation": "distillation",
    "distillation_layers": "distillation, given layers",
    "distillation_then_human": "distillation, then human labels",
    "distillation_then_human_layers": "distillation, then human labels, given layers",
    "joint_cross_entropy": "joint cross-entropy",
    "forward_correction": "forward-corrected distillation, then human labels",
    "dawid_skene": "Dawid-Skene, then distillation, then human labels",
    "annot_mix": "scikit-activeml's Annot-Mix on both",
    "setfit": "SetFit on human labels",
} | {
    f"{loss}-{schedule}": f"our student: {what}, {when}"
    for loss, what in LOSSES.items()
    for schedule, when in SCHEDULES.items()
}


def named(method: str) -> str:
    """The method's name in words, or its identifier if it has none."""
    return NAMES.get(method, f"`{method}`")


def named_task(task: str) -> str:
    """The task's name in words, or its identifier if it has none."""
    return TASK_NAMES.get(task, task)
