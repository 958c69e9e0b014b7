"""Run jobs in this process, recorded in the home's Dagster instance."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from pipeline import progress
from pipeline.dagster_instance.instance import PID_TAG, open_instance, own_pid_tag
from warehouse.errors import RisoriusError, SettingsError, system_failure
from warehouse.ids import check_batch
from warehouse.storage import locks
from warehouse.storage.home import Home

if TYPE_CHECKING:
    import dagster as dg

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""The event log keeps everything; a terminal needs progress, and one line about a failure."""

_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"


class RunError(RisoriusError):
    """A Dagster run failed in a step or a blocking check."""


def add_batch(home: Home, batch: str) -> None:
    """Make ``batch`` a partition, if it is not one yet."""
    from pipeline.defs.partitions import NAME

    open_instance(home).add_dynamic_partitions(NAME, [check_batch(batch)])


def materialize(home: Home, job: str, *, batch: str | None = None) -> dict[str, dict[str, Any]]:
    """Run one job; return the metadata of each materialized asset.

    Args:
        job: a job of ``pipeline/defs/jobs.py``.
        batch: the partition, for jobs of partitioned assets.

    Raises:
        RunError: a step or a blocking check failed; says which and why.
        RisoriusError: raised by a step, unchanged.
    """
    import dagster as dg

    with warnings.catch_warnings(), locks.writing(home.root, waiting=progress.waiting):
        warnings.simplefilter("ignore")
        instance = open_instance(home)
        definition = _definitions().resolve_job_def(job)
        tags = {PID_TAG: own_pid_tag()}
        if batch is not None:
            tags |= {_RANGE_START: batch, _RANGE_END: batch}
        try:
            result = definition.execute_in_process(instance=instance, tags=tags, run_config=_QUIET)
        except RisoriusError:
            raise
        except dg.DagsterExecutionInterruptedError:
            # Ctrl-C; the run is recorded as failed and can be run again.
            raise KeyboardInterrupt from None
        except Exception as error:
            raise _explain(job, error) from error
    return {
        event.asset_key.to_user_string(): {
            name: getattr(value, "value", value)
            for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }


def _definitions() -> dg.Definitions:
    from pipeline.definitions import defs

    return defs


def _explain(job: str, error: Exception) -> RisoriusError:
    cause: BaseException | None = error
    seen: set[int] = set()
    # Template engines raise errors that are their own context.
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, RisoriusError):
            return cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    if (failure := system_failure(error)) is not None:
        return failure
    if type(error).__name__ == "DagsterInvariantViolationError":
        return SettingsError(
            f"The job {job} cannot run",
            got=str(error).splitlines()[0],
            hint="run `risorius doctor`",
        )
    return RunError(
        f"The job {job} failed",
        got=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
        hint="look at the run in the Dagster UI (`risorius dev`), or add --debug",
    )
