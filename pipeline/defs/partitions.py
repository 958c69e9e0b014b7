"""The one partitioning: a batch is a folder of videos."""

import dagster as dg

batches = dg.DynamicPartitionsDefinition(name="batches")
