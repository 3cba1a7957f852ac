"""What ``X`` is: its forms, the texts of its rows, and who speaks."""
