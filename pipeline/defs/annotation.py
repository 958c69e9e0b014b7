"""Annotation: label queue, Label Studio tasks, votes, soft labels."""

import json
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

import dagster as dg
import polars as pl

from annotation import aggregation
from annotation.aggregation import agreement, items
from annotation.label_studio import item_page, item_sync, sync
from annotation.label_studio.item_answers import spans_of, texts_of
from annotation.sampling.queue import next_faces
from pipeline import progress, reporting
from pipeline.defs.automation import WHEN_SETTLED
from pipeline.defs.rating import identities, near_duplicates
from pipeline.defs.resources import Workplace
from pipeline.defs.segments import segment_options
from pipeline.defs.stage import blocking_check, md, stage_asset
from pipeline.segments import whole
from warehouse.errors import StudioError
from warehouse.storage import tables, views
from warehouse.storage.home import Home
from warehouse.storage.schema import TABLES
from warehouse.vocabulary import AU_INDEX, EXPRESSIONS

_EVENT_S, _POLL_S = 5, 60


@stage_asset(
    "annotation",
    deps=[identities, near_duplicates],
    kinds={"polars", "parquet"},
    team="annotation",
    table="queue",
    when=WHEN_SETTLED,
)
def label_queue(workplace: Workplace) -> dg.MaterializeResult:
    """Choose the faces to label next.

    One row per face with reason and missing votes. Near duplicates are queued once; faces with
    enough votes leave.
    """
    home, settings = workplace.home(), workplace.settings()
    audits = tables.read(home, "audits")
    queued = next_faces(
        views.query(
            home,
            """SELECT faces.face_id, verdict, yaw, pitch, identities.subject_id
               FROM faces LEFT JOIN identities ON identities.face_id = faces.face_id
               WHERE verdict = 'kept'""",
        ),
        tables.read(home, "ratings"),
        votes=views.query(home, "SELECT * FROM votes"),
        near_duplicates=audits.filter(pl.col("audit") == "near_duplicates"),
        flagged=_doubted(home),
        reask_votes=settings.reask_votes,
        budget=settings.vote_budget,
        wanted_votes=settings.wanted_votes,
    )
    tables.write(home, "queue", queued, part="current")
    shown = queued.join(tables.read(home, "faces").select("face_id", "crop"), on="face_id")
    shown = shown.sort("priority", "face_id", descending=[True, False])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": queued.height,
            "reasons": md(reporting.table(queued.group_by("reason").len("faces").sort("reason"))),
            "first_in_line": md(reporting.contact_sheet(home, shown, limit=48)),
        }
    )


@stage_asset(
    "annotation", deps=[label_queue], kinds={"labelstudio"}, team="annotation", when=WHEN_SETTLED
)
def studio_tasks(workplace: Workplace) -> dg.MaterializeResult:
    """Create Label Studio tasks for queued faces.

    One task per face with crop and context; with a predicted label only if a setting says so. A
    face with a task gets no second one, unless an audit asks for it. Items of the pages that a
    setting names get tasks in projects of their own.
    """
    settings, report = workplace.settings(), partial(progress.report, "studio_tasks", "")
    pushed = sync.push_faces(settings.label_studio, on_progress=report)
    shown = {item_page.load(page).item_kind for page in settings.pages} & whole.FOLDERS.keys()
    unreadable = {
        kind: whole.write_whole(workplace.home(), kind, segment_options(settings))
        for kind in sorted(shown)
    }
    pages = {
        page: item_sync.push_items(settings.label_studio, page, on_progress=report)
        for page in settings.pages
    }
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": pushed.new + pushed.known,
            "new": pushed.new,
            "known": pushed.known,
            "tasks_in_project": sum(pushed.tasks.values()),
            "projects": len(pushed.tasks),
            "tasks closed": pushed.closed,
            "tasks reopened": pushed.reopened,
            "project": dg.MetadataValue.url(pushed.url),
            **{f"items of page {page}": _items_pushed(found) for page, found in pages.items()},
            **{
                f"{kind}s that could not be written": md(reporting.table(_reasons(failed)))
                for kind, failed in unreadable.items()
                if failed
            },
            "own order": md(
                "\n".join(f"- [{who}]({url})" for who, url in sorted(pushed.links.items()))
                or "_no accounts yet_"
            ),
        }
    )


@stage_asset(
    "annotation",
    deps=[studio_tasks],
    kinds={"labelstudio", "parquet"},
    team="annotation",
    table="annotations",
)
def annotations(workplace: Workplace) -> dg.MaterializeResult:
    """Pull annotations from Label Studio.

    One row per event: created, updated or deleted; append-only, skips included. The view
    `current_votes` holds the current vote.
    """
    home, workspace = workplace.home(), workplace.settings().label_studio
    on_server, new, failed, happened = {}, 0, [], []
    for project, found in sync.pull_votes(workspace, now=datetime.now(UTC)):
        if isinstance(found, StudioError):
            failed.append(found)
            continue
        on_server[str(project.id)], new = found.n_on_server, new + found.n_events
        happened += [f"project {project.id}: {text}" for text in [found.restored] if text]
    if failed:
        raise failed[0]
    sync.open_and_close_tasks(workspace)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": views.query(home, "SELECT count(*) FROM annotations").item(),
            "new events": new,
            "events": md(
                reporting.table(
                    views.query(
                        home,
                        "SELECT event, count(*) AS n FROM annotations GROUP BY ALL ORDER BY ALL",
                    )
                )
            ),
            "votes_standing": views.query(home, "SELECT count(*) FROM current_votes").item(),
            "annotations_on_server": sum(on_server.values()),
            **({"on the server": "; ".join(happened)} if happened else {}),
            "on server, by project": dg.MetadataValue.json(on_server),
        }
    )


@blocking_check(asset=annotations)
def no_vote_lost(
    context: dg.AssetCheckExecutionContext, workplace: Workplace
) -> dg.AssetCheckResult:
    """The table holds every annotation of the server, and events never shrink.

    Votes of a project that was deleted on the server are kept: the table is their only copy.
    """
    home = workplace.home()
    n_events = views.query(home, "SELECT count(*) FROM annotations").item()
    newest = context.instance.get_latest_materialization_event(annotations.key)
    metadata = (
        newest.asset_materialization.metadata if newest and newest.asset_materialization else {}
    )
    if "on server, by project" not in metadata:
        return dg.AssetCheckResult(passed=True, metadata={"events": n_events})
    server: dict[str, int] = metadata["on server, by project"].value
    counted = int(metadata["dagster/row_count"].value)
    stand = dict(
        views.query(
            home, "SELECT project_id, count(*) FROM standing_annotations GROUP BY ALL"
        ).iter_rows()
    )
    lost = {
        project: gap
        for project, on_server in server.items()
        if (gap := on_server - stand.get(int(project), 0))
    }
    return dg.AssetCheckResult(
        passed=not lost and n_events >= counted,
        metadata={
            "events": n_events,
            "on server": sum(server.values()),
            "lost": sum(lost.values()),
            "lost, by project": lost,
            "projects deleted on the server": len(
                stand.keys() - {int(number) for number in server}
            ),
        },
    )


@blocking_check(asset=annotations)
def votes_are_their_raters_own(workplace: Workplace) -> dg.AssetCheckResult:
    """No account changed another's annotation or submitted in its name.

    The open-source server allows both. Such events are stored but are no votes: the rater's own
    last answer counts. A warning, because nothing is lost.
    """
    found = views.query(workplace.home(), "SELECT * FROM edits_by_others")
    return dg.AssetCheckResult(
        passed=found.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "events": found.height,
            "annotations": found.select("project_id", "annotation_id").n_unique(),
            "first": md(
                reporting.table(found.drop("expressions").head(20)) if found.height else "_none_"
            ),
        },
    )


@dg.sensor(
    target=dg.AssetSelection.assets("annotations"),
    minimum_interval_seconds=_EVENT_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def votes_came_in(
    context: dg.SensorEvaluationContext, workplace: Workplace
) -> dg.RunRequest | dg.SkipReason:
    """Run the pull when something changed in Label Studio.

    Asks the server every minute, and at once after a webhook event.
    """
    cursor = context.cursor or ""
    seen = json.loads(cursor) if cursor.startswith("{") else {}
    hint = sync.change_file(workplace.home())
    now, hinted = time.time(), hint.stat().st_mtime if hint.exists() else 0.0
    if hinted <= seen.get("hint", 0.0) and 0 <= now - seen.get("asked", 0.0) < _POLL_S:
        return dg.SkipReason("no webhook event, and asked less than a minute ago")
    newest = sync.last_change(workplace.settings().label_studio)
    context.update_cursor(json.dumps({"asked": now, "hint": hinted, "newest": newest}))
    if newest is None:
        return dg.SkipReason("Label Studio is not running, or holds no project of this home yet")
    if seen.get("newest") == newest:
        return dg.SkipReason(f"nothing changed since {newest}")
    return dg.RunRequest(run_key=newest)


def _doubted(home: Home) -> pl.DataFrame:
    """Return faces whose label an audit flags, with their answer counts."""
    return views.query(
        home,
        """SELECT DISTINCT audits.face_id, coalesce(n_answers, 0) AS n_answers
           FROM audits
           LEFT JOIN answers_given
               ON answers_given.face_id = audits.face_id AND label_set = 'expressions'
           WHERE flag AND audit IN ('label_noise', 'open_set')
           ORDER BY audits.face_id""",
    )


@stage_asset(
    "annotation",
    deps=[annotations],
    kinds={"polars", "parquet"},
    team="annotation",
    table="soft_labels",
    when=WHEN_SETTLED,
)
def soft_labels(workplace: Workplace) -> dg.MaterializeResult:
    """Aggregate votes into soft labels.

    One row per voted face: a distribution over expressions, from the votes and, unless the method
    is a share of votes, the machine rating. Also fills `rater_quality`, the agreement of each rater
    with the others.
    """
    home, settings = workplace.home(), workplace.settings()
    votes = views.query(home, "SELECT * FROM votes")
    machine = views.query(home, "SELECT * FROM prior_ratings ORDER BY face_id")
    labels = aggregation.soft_labels(votes, method=settings.aggregation, machine=machine)
    labels = _with_units(labels, home)
    tables.write(home, "soft_labels", labels, part="current")
    of_items = _write_item_answers(home, settings.pages)
    tables.write(home, "rater_quality", aggregation.rater_quality(votes, labels), part="current")
    shown = labels.join(tables.read(home, "faces").select("face_id", "crop"), on="face_id")
    shown = shown.sort("entropy", "face_id", nulls_last=True)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": labels.height,
            "votes": votes.height,
            **({"labels of other items": of_items} if of_items else {}),
            "krippendorff_alpha": float(agreement.krippendorff_alpha(votes) or 0.0),
            "alpha by expression": md(reporting.table(agreement.alpha_by_expression(votes))),
            "alpha by rater": md(reporting.table(agreement.alpha_by_rater(votes))),
            "alpha by week": md(reporting.table(agreement.alpha_over_time(votes))),
            "certain_to_disputed": md(reporting.contact_sheet(home, shown, captions=_top(shown))),
        }
    )


def _write_item_answers(home: Home, pages: tuple[str, ...]) -> int:
    """Write soft labels, texts and spans of items other than faces."""
    votes = views.query(home, "SELECT * FROM item_votes ORDER BY ALL")
    if votes.is_empty() and not tables.parts(home, "texts") | tables.parts(home, "spans"):
        return 0
    labels = items.item_soft_labels(votes)
    rows = votes.to_dicts()
    # Votes outlast the setting: pages that ship are known even if it no longer names them.
    known = dict.fromkeys([*pages, *item_page.names()])
    sets = {
        (kind, name): item_page.span_sets(known, item_kind=kind, label_set=name)
        for kind, name in votes.select("item_kind", "label_set").unique().iter_rows()
    }
    texts = [row for vote in rows for row in texts_of(vote)]
    spans = [
        row for vote in rows for row in spans_of(vote, sets[vote["item_kind"], vote["label_set"]])
    ]
    found = {
        "soft_labels": labels,
        "texts": pl.DataFrame(texts, schema=TABLES["texts"].schema),
        "spans": pl.DataFrame(spans, schema=TABLES["spans"].schema),
    }
    for name, frame in found.items():
        tables.write(home, name, frame, part="items")
    return labels.height


def _reasons(failed: Mapping[str, str]) -> pl.DataFrame:
    rows = {"video_id": list(failed), "reason": list(failed.values())}
    return pl.DataFrame(rows, schema={"video_id": pl.String, "reason": pl.String})


def _items_pushed(found: item_sync.ItemPush) -> str:
    left = [f"{number} {reason}" for reason, number in sorted(found.left.items())]
    return f"{found.pushed.new} new, {found.pushed.known} known" + "".join(
        f"; left out: {one}" for one in left
    )


@blocking_check(asset=soft_labels)
def soft_labels_sum_to_one(workplace: Workplace) -> dg.AssetCheckResult:
    """Soft labels sum to one without NaN; only open-set faces have none."""
    labels = tables.read(workplace.home(), "soft_labels").filter(pl.col("face_id").is_not_null())
    total = pl.col("expression").arr.sum()
    bad = labels.filter(pl.col("expression").is_not_null() & ~((total - 1).abs() < 1e-4))
    absent = labels.filter(pl.col("expression").is_null() & (pl.col("open_set_share") < 1))
    return dg.AssetCheckResult(
        passed=bad.is_empty() and absent.is_empty(),
        metadata={"rows": labels.height, "not a distribution": bad.height, "absent": absent.height},
    )


def _with_units(labels: pl.DataFrame, home: Home) -> pl.DataFrame:
    """Add ``au``: mean intensity coded per action unit, NaN where uncoded."""
    coded = views.query(
        home,
        "SELECT face_id, unit, avg(intensity) AS mean FROM au_votes GROUP BY ALL ORDER BY ALL",
    )
    if coded.is_empty():
        return labels
    rows: dict[str, list[float]] = {}
    for face, unit, mean in coded.iter_rows():
        rows.setdefault(face, [math.nan] * len(AU_INDEX))[AU_INDEX[unit]] = mean
    units = pl.DataFrame({"face_id": list(rows), "au": list(rows.values())}).with_columns(
        pl.col("au").cast(labels.schema["au"])
    )
    found = labels.drop("au").join(units, on="face_id", how="left", maintain_order="left")
    return found.select(labels.columns)


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
