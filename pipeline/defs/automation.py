"""When assets run by themselves. Plain ``eager()`` and ``on_missing()`` fail here in two ways:
the first blocks for ever on one batch that keeps failing, the second never starts a batch that
was registered before the daemon looked."""

import dagster as dg

ON_NEW_BATCH = (
    dg.AutomationCondition.missing()
    & ~dg.AutomationCondition.in_progress()
    & ~dg.AutomationCondition.execution_failed()
)
"""A batch nobody has processed; one that failed waits for a person."""

AFTER_BATCH = ON_NEW_BATCH & ~dg.AutomationCondition.any_deps_missing()
"""The same, once the stage before has been through that batch."""

WHEN_SETTLED = (
    dg.AutomationCondition.any_deps_updated()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)
"""Once per settled change upstream, however many batches it came from."""


SENSOR = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)
