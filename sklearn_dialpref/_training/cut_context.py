"""Whether utterances are asked about without their context; serving does so as well."""

from sklearn_dialpref._dialogues.cut_context import turn_summary, warn_of_cut_context

__all__ = ["turn_summary", "warn_of_cut_context"]
