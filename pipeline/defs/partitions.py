"""The one partitioning: a batch is a folder of videos."""

import dagster as dg

NAME = "batches"

batches = dg.DynamicPartitionsDefinition(name=NAME)
