"""Automation conditions.

Dagster's ``eager()`` blocks forever on one batch that keeps failing. ``on_missing()`` never
starts a batch that was registered before the daemon started.
"""

import dagster as dg

ON_NEW_BATCH = (
    dg.AutomationCondition.missing()
    & ~dg.AutomationCondition.in_progress()
    & ~dg.AutomationCondition.execution_failed()
)
"""A batch not processed yet; a failed one waits for a manual run."""

AFTER_BATCH = ON_NEW_BATCH & ~dg.AutomationCondition.any_deps_missing()
"""The same, when the stage before has processed the batch."""

WHEN_SETTLED = (
    dg.AutomationCondition.any_deps_updated()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)
"""Once after upstream changes finished, for any number of batches."""


SENSOR = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)
