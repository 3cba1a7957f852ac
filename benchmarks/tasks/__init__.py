"""Dialogue acts, intents, strategies and states, with votes of an LLM simulated after real ones.

    python -m benchmarks.tasks --data-dir DIR

From the repository root.
"""
