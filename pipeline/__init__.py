"""Ingestion, assets, runs and command line."""
