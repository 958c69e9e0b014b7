"""Decorators of assets and checks with the defaults of this project."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import dagster as dg

from pipeline.defs.partitions import batches

md = dg.MetadataValue.md

blocking_check = partial(dg.asset_check, blocking=True)
"""Check that stops everything downstream when it fails."""


def stage_asset(
    group: str,
    *,
    kinds: set[str],
    team: str,
    table: str | None = None,
    deps: Iterable[Any] = (),
    by_batch: bool = False,
    when: dg.AutomationCondition | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Define an asset of a stage.

    Args:
        team: owner.
        table: table that the asset writes.
        by_batch: partition the asset by batch; one run handles several batches.
        when: automation condition; without it, only jobs run the asset.
    """
    return dg.asset(
        deps=list(deps),
        group_name=group,
        kinds=kinds,
        owners=[f"team:{team}"],
        tags={"table": table} if table else None,
        automation_condition=when,
        partitions_def=batches if by_batch else None,
        backfill_policy=dg.BackfillPolicy.single_run() if by_batch else None,
    )
