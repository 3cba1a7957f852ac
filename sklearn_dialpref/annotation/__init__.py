"""Labels from language models: prompts, answers, and what they cost."""

from .annotator import LLMAnnotator
from .bank import PromptBank
from .completion import Completion, EndpointError
from .prompts import Prompt

__all__ = ["Completion", "EndpointError", "LLMAnnotator", "Prompt", "PromptBank"]
