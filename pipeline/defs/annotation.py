"""Annotation: which faces people should see, the faces they are shown, and every vote back."""

import uuid
from datetime import UTC, datetime
from functools import partial

import dagster as dg
import polars as pl

from annotation import aggregate, agreement
from annotation.queue import next_faces
from annotation.studio import pull, push
from pipeline import pictures, progress, studio
from pipeline.defs.automation import WHEN_SETTLED
from pipeline.defs.rating import identities, near_duplicates
from pipeline.defs.resources import Workplace
from warehouse import lens, tables
from warehouse.vocabulary import EXPRESSIONS

_POLL_S = 60


@dg.asset(
    deps=[identities, near_duplicates],
    automation_condition=WHEN_SETTLED,
    group_name="annotation",
    kinds={"polars", "parquet"},
    owners=["team:annotation"],
    tags={"table": "queue"},
)
def label_queue(workplace: Workplace) -> dg.MaterializeResult:
    """One row per face people should look at next, with why and how many votes are wanted.

    A picture that repeats another is asked once; a face with enough votes leaves."""
    home, settings = workplace.home(), workplace.settings()
    queued = next_faces(
        lens.ask(home, "SELECT * FROM faces WHERE verdict = 'kept'"),
        tables.read(home, "ratings"),
        votes=lens.ask(home, "SELECT * FROM votes"),
        near_duplicates=tables.read(home, "audits").filter(pl.col("audit") == "near_duplicates"),
        wanted_votes=settings.wanted_votes,
    )
    tables.write(home, "queue", queued, part="current")
    shown = queued.join(tables.read(home, "faces").select("face_id", "crop"), on="face_id")
    shown = shown.sort("priority", "face_id", descending=[True, False])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": queued.height,
            "reasons": dg.MetadataValue.md(
                pictures.table(queued.group_by("reason").len("faces").sort("reason"))
            ),
            "first_in_line": dg.MetadataValue.md(pictures.contact_sheet(home, shown, limit=48)),
        }
    )


@dg.asset(
    deps=[label_queue],
    automation_condition=WHEN_SETTLED,
    group_name="annotation",
    kinds={"labelstudio"},
    owners=["team:annotation"],
)
def studio_tasks(workplace: Workplace) -> dg.MaterializeResult:
    """One Label Studio task per queued face: crop and context, no predicted label.

    A face that has a task already gets no second one."""
    home, settings = workplace.home(), workplace.settings()
    queued = lens.ask(
        home,
        """SELECT queue.face_id, crop, context, queue.reason
           FROM queue JOIN faces USING (face_id) ORDER BY priority DESC, queue.face_id""",
    )
    with studio.session(settings) as (client, project):
        pushed = push.push(
            client, project.id, queued, progress=partial(progress.say, "studio_tasks", "")
        )
        in_project, _ = client.counts(project.id)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(pushed.task_ids),
            "new": pushed.new,
            "known": pushed.known,
            "tasks_in_project": in_project,
            "project": dg.MetadataValue.url(project.url),
        }
    )


@dg.asset(
    deps=[studio_tasks],
    group_name="annotation",
    kinds={"labelstudio", "parquet"},
    owners=["team:annotation"],
    tags={"table": "annotations"},
)
def annotations(workplace: Workplace) -> dg.MaterializeResult:
    """One row per event of an annotation: created, updated or deleted. Append-only; every vote
    that ever stood is here, skips too. The current vote is the view `current_votes`."""
    home, settings = workplace.home(), workplace.settings()
    known = tables.read(home, "annotations")
    with studio.session(settings) as (client, project):
        pulled = pull.pull(
            client,
            project.id,
            known=known,
            rater_of=studio.rater_of(settings),
            now=datetime.now(UTC),
        )
    if pulled.events.height:
        part = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        tables.write(home, "annotations", pulled.events, part=part)
    events = pulled.events["event"].value_counts(sort=True)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": known.height + pulled.events.height,
            "new_events": dg.MetadataValue.md(pictures.table(events)),
            "votes_standing": lens.ask(home, "SELECT count(*) FROM current_votes").item(),
            "annotations_on_server": pulled.n_on_server,
            "project_id": project.id,
            "project": dg.MetadataValue.url(project.url),
        }
    )


@dg.asset_check(asset=annotations, blocking=True)
def no_vote_lost(
    context: dg.AssetCheckExecutionContext, workplace: Workplace
) -> dg.AssetCheckResult:
    """As many annotations stand in the table as the server holds, and events never grow fewer."""
    events = tables.read(workplace.home(), "annotations")
    newest = context.instance.get_latest_materialization_event(annotations.key)
    told = newest.asset_materialization.metadata if newest and newest.asset_materialization else {}
    if "project_id" not in told:
        return dg.AssetCheckResult(passed=True, metadata={"events": events.height})
    on_server, counted, project_id = (
        int(told[name].value)
        for name in ("annotations_on_server", "dagster/row_count", "project_id")
    )
    lost = pull.reconcile(events, project_id=project_id, n_on_server=on_server)
    return dg.AssetCheckResult(
        passed=lost == 0 and events.height >= counted,
        metadata={"events": events.height, "on server": on_server, "lost": lost},
    )


@dg.asset(
    deps=[annotations],
    automation_condition=WHEN_SETTLED,
    group_name="annotation",
    kinds={"polars", "parquet"},
    owners=["team:annotation"],
    tags={"table": "soft_labels"},
)
def soft_labels(workplace: Workplace) -> dg.MaterializeResult:
    """One row per voted face: the distribution over expressions that its votes support.

    Also fills `rater_quality`: how far each rater agrees with the others."""
    home, settings = workplace.home(), workplace.settings()
    votes = lens.ask(home, "SELECT * FROM votes")
    labels = aggregate.soft_labels(votes, method=settings.aggregation)
    tables.write(home, "soft_labels", labels, part="current")
    tables.write(home, "rater_quality", aggregate.rater_quality(votes, labels), part="current")
    shown = labels.join(tables.read(home, "faces").select("face_id", "crop"), on="face_id")
    shown = shown.sort("entropy", "face_id", nulls_last=True)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": labels.height,
            "votes": votes.height,
            "krippendorff_alpha": float(agreement.krippendorff_alpha(votes) or 0.0),
            "certain_to_disputed": dg.MetadataValue.md(
                pictures.contact_sheet(home, shown, captions=_top(shown))
            ),
        }
    )


@dg.asset_check(asset=soft_labels, blocking=True)
def soft_labels_sum_to_one(workplace: Workplace) -> dg.AssetCheckResult:
    """Each soft label sums to one and holds no NaN; it is missing only without a closed vote."""
    labels = tables.read(workplace.home(), "soft_labels")
    total = pl.col("expression").arr.sum()
    bad = labels.filter(pl.col("expression").is_not_null() & ~((total - 1).abs() < 1e-4))
    absent = labels.filter(pl.col("expression").is_null() & (pl.col("open_set_share") < 1))
    return dg.AssetCheckResult(
        passed=bad.is_empty() and absent.is_empty(),
        metadata={"rows": labels.height, "not a distribution": bad.height, "absent": absent.height},
    )


@dg.sensor(
    target=dg.AssetSelection.assets("annotations"),
    minimum_interval_seconds=_POLL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def votes_came_in(
    context: dg.SensorEvaluationContext, workplace: Workplace
) -> dg.RunRequest | dg.SkipReason:
    """Pulls annotations when something moved in Label Studio since the last pull."""
    newest = studio.last_change(workplace.settings())
    if newest is None:
        return dg.SkipReason("Label Studio is not running, or holds no project of this home yet")
    if context.cursor == newest:
        return dg.SkipReason(f"nothing moved since {newest}")
    context.update_cursor(newest)
    return dg.RunRequest(run_key=newest)


def _top(labels: pl.DataFrame) -> list[str]:
    captions = []
    for expression in labels["expression"]:
        if expression is None:
            captions.append("open set")
            continue
        values = list(expression)
        top = max(range(len(values)), key=values.__getitem__)
        captions.append(f"{EXPRESSIONS[top][:6]} {round(100 * values[top])}")
    return captions
