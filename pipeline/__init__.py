"""What runs, when, and on which batch: Dagster, the command line, and the way from video to faces."""
