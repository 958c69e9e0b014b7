"""Dagster's view of the loop: one module per stage. Assets are thin; the work is elsewhere."""

import warnings

import dagster as dg

# backfill_policy is marked beta and says so once per asset and per process.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
