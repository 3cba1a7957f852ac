"""How a student is trained."""
