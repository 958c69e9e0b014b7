"""Dagster's view of the loop: one module per stage. Assets are thin; the work is elsewhere."""
