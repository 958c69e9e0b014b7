"""Training shared by raters and generator: loop, checkpoint, card."""
