"""Golden files: the public behaviour as text that a review can read."""
