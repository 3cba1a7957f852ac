"""Training at scale: seconds and memory by size, against the bare encoder and other trainers."""
