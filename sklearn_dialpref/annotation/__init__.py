"""Labels from language models: prompts, answers, and what they cost."""

from .annotator import LLMAnnotator
from .bank import PromptBank
from .completion import Completion, EndpointError
from .prompts import Prompt
from .state_annotator import DialogueStateAnnotator

__all__ = [
    "Completion",
    "DialogueStateAnnotator",
    "EndpointError",
    "LLMAnnotator",
    "Prompt",
    "PromptBank",
]
