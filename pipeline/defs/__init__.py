"""Dagster assets, one module per stage. Assets read, call and write."""

import warnings

import dagster as dg

# backfill_policy is marked beta and says so once per asset and per process.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
