"""Golden files: the public behaviour of Risorius, frozen in text that a review can read."""
