"""Labels from language models: prompts, answers, and what they cost."""

from .prompts import Prompt, PromptBank

__all__ = ["Prompt", "PromptBank"]
