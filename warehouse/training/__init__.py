"""Training shared by the rater and the face generator: loop, checkpoints, model cards."""
