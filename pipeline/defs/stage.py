"""Decorators of assets and checks with the defaults of this project."""

from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any

import dagster as dg

from pipeline import settings
from pipeline.defs.partitions import batches
from warehouse.storage import locks

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

    Its process keeps erasures out until it ends: Dagster stores the pictures in the result after
    the function has returned.

    Args:
        team: owner.
        table: table that the asset writes.
        by_batch: partition the asset by batch; one run handles several batches.
        when: automation condition; without it, only jobs run the asset.
    """
    define = dg.asset(
        deps=list(deps),
        group_name=group,
        kinds=kinds,
        owners=[f"team:{team}"],
        tags={"table": table} if table else None,
        automation_condition=when,
        partitions_def=batches if by_batch else None,
        backfill_policy=dg.BackfillPolicy.single_run() if by_batch else None,
    )

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        @wraps(function)
        def step(*args: Any, **given: Any) -> Any:
            locks.hold_until_exit(settings.load().place.root)
            return function(*args, **given)

        return define(step)

    return decorate
