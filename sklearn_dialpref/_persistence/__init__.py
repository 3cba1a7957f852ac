"""Folders that appear whole or not at all, and what a saved classifier consists of."""
