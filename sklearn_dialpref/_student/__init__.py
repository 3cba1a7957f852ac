"""The student: text encoders, frozen or trained, and the head."""
