"""What runs, when, on which batch: Dagster, the command line, and the way to faces."""
