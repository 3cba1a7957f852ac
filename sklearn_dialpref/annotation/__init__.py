"""Labels from language models: prompts, answers, and what they cost."""

from .annotator import LLMAnnotator
from .client import Completion, EndpointError
from .prompts import Prompt, PromptBank

__all__ = ["Completion", "EndpointError", "LLMAnnotator", "Prompt", "PromptBank"]
