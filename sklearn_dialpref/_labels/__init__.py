"""What ``y_human`` and ``y_llm`` are, and what a fitted classifier says of its labels."""
