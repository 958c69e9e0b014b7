"""Faces to people and votes back, over every project of a home."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from pipeline import label_progress, self_reports, studio
from pipeline.settings import Settings
from warehouse.errors import StudioError
from warehouse.storage import mirror, tables, views
from warehouse.vocabulary import EXPRESSIONS

if TYPE_CHECKING:
    from annotation.label_studio.client import Client
    from annotation.label_studio.page import Page
    from annotation.label_studio.projects import Project
    from annotation.label_studio.pull import Gathered
    from annotation.label_studio.stream import Stepped

_LOCK_S = 600


@dataclass
class Asked:
    """What a push did: faces that got a task or had one, tasks per project, links per person."""

    new: int = 0
    known: int = 0
    tasks: dict[int, int] = field(default_factory=dict)
    url: str = ""
    links: dict[str, str] = field(default_factory=dict)
    stepped: Stepped | None = None


def push_faces(settings: Settings, *, progress: Callable[[int, int], None] | None = None) -> Asked:
    """Give every queued face a task, then bring the stream in step with what is owed.

    Raises:
        StudioError: the server is away or refuses, or a labeling config was edited by hand.
    """
    asked, queued = Asked(), queued_faces(settings)
    studio.bring(settings, [*queued["crop"], *queued["context"]])
    with studio.client_of(settings) as client:
        for clip in (False, True):
            mine = queued.filter(pl.col("clip").is_not_null() == clip)
            # Without any face there is a project all the same: people may look at it.
            if mine.height or not clip:
                _push_page(settings, client, mine, asked, clip=clip, progress=progress)
        asked.links |= self_reports.push_filmed(settings, client)
        asked.stepped = step(settings, client)
    return asked


def queued_faces(settings: Settings) -> pl.DataFrame:
    """``face_id, crop, context, reason, clip, prediction`` of what people should see, in order."""
    home = settings.place
    if settings.label_set == "coarse":
        owed = label_progress.owed(settings).filter(pl.col("owed") > 0)
        queue = owed.select("face_id", reason=pl.lit("coverage"), priority=pl.lit(0.0))
    else:
        queue = tables.read(home, "queue").select("face_id", "reason", "priority")
    kept = tables.scan(home, "faces").filter(pl.col("verdict") == "kept")
    faces = kept.select("face_id", "track_id", "crop", "context").unique("face_id").collect()
    found = queue.join(faces, on="face_id")
    clips = home.media / "clips"
    if settings.show_clips:
        mirror.sync(clips)
    found = found.with_columns(
        clip=pl.Series(
            [
                f"clips/{track}.webm"
                if settings.show_clips and (clips / f"{track}.webm").is_file()
                else None
                for track in found["track_id"]
            ],
            dtype=pl.String,
        )
    )
    found = found.join(_predictions(settings), on="face_id", how="left")
    return found.sort("priority", "face_id", descending=[True, False])


def pull_votes(
    settings: Settings, *, now: datetime
) -> Iterator[tuple[Project, Gathered | StudioError]]:
    """Append what is new in every project to ``annotations``; how each of them ended.

    One that fails does not hold up the others. One process of a home pulls at a time.

    Raises:
        StudioError: the server cannot be reached at all.
    """
    from warehouse.storage.locks import file_lock

    studio_dir = settings.place.studio
    studio_dir.mkdir(parents=True, exist_ok=True)
    with (
        file_lock(studio_dir / ".pull-lock", purpose="pulling votes", timeout_s=_LOCK_S),
        studio.client_of(settings) as client,
    ):
        for project in studio.all_projects(settings, client):
            try:
                yield project, _pull(settings, client, project, now=now)
            except StudioError as error:
                yield project, error


def _pull(settings: Settings, client: Client, project: Project, *, now: datetime) -> Gathered:
    from annotation.label_studio.pull import gather

    home = settings.place
    # A pull that wrote a part and did not end: how far it came cannot be told from its events.
    unfinished = home.studio / f"pull-{project.id}-unfinished"

    def keep(events: pl.DataFrame) -> None:
        unfinished.touch()
        part = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        tables.write(home, "annotations", events, part=part)

    found = gather(
        client,
        project.id,
        known=partial(tables.scan, home, "annotations"),
        keep=keep,
        rater_of=studio.rater_of(settings),
        now=now,
        whole=unfinished.exists(),
        label_set=project.label_set,
    )
    unfinished.unlink(missing_ok=True)
    return found


def step(settings: Settings, client: Client) -> Stepped:
    """Take out of the stream what has enough votes, and put back what lacks some.

    Projects that asked the same before the page was changed are closed: the new page's ask on.
    """
    from annotation.label_studio.marks import page_fingerprint
    from annotation.label_studio.stream import Stepped, keep_in_step

    if not tables.parts(settings.place, "queue"):
        return Stepped(closed=0, opened=0)
    owed = dict(label_progress.owed(settings).select("face_id", "owed").iter_rows())
    pages = {page_fingerprint(studio.page_of(settings, clip=clip)) for clip in (False, True)}
    mine = [
        found
        for found in studio.projects(settings, client)
        if found.label_set == settings.label_set
    ]
    old = keep_in_step(client, [found.id for found in mine if found.page not in pages], {})
    now = keep_in_step(client, [found.id for found in mine if found.page in pages], owed)
    own = self_reports.step_filmed(settings, client)
    return Stepped(closed=old.closed + now.closed + own.closed, opened=now.opened + own.opened)


def step_if_queued(settings: Settings) -> Stepped | None:
    """``step`` after a pull; None when nothing is queued yet."""
    if not tables.parts(settings.place, "queue"):
        return None
    with studio.client_of(settings) as client:
        return step(settings, client)


def _push_page(
    settings: Settings,
    client: Client,
    queued: pl.DataFrame,
    asked: Asked,
    *,
    clip: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    from annotation.label_studio import users
    from annotation.label_studio.rounds import push_rounds
    from annotation.label_studio.task_order import own_orders

    page = studio.page_of(settings, clip=clip)
    first = studio.ensure(settings, client, page=page)
    mine = [found for found in studio.projects(settings, client) if found.page == first.page]
    spread = push_rounds(
        client,
        queued.drop("clip") if not clip else queued,
        ensure=partial(_round, settings, client, page),
        rounds=max((found.round for found in mine), default=1),
        cap=settings.project_cap,
        place=f"{settings.place.salt()} {first.page}",
        progress=progress,
    )
    asked.new, asked.known = asked.new + spread.new, asked.known + spread.known
    asked.tasks |= {found.id: n for found, n in zip(spread.projects, spread.tasks, strict=True)}
    asked.url = asked.url or first.url
    voters = [
        studio.pseudonym_of(settings, person)
        for person in users.list_people(settings.place.studio)
        if person.kind == "person" and not person.removed
    ]
    if voters:
        asked.links |= own_orders(client, spread.projects[-1].id, voters)


def _round(settings: Settings, client: Client, page: Page, number: int) -> Project:
    return studio.ensure(settings, client, page=page, round=number)


def _predictions(settings: Settings) -> pl.DataFrame:
    """``face_id, prediction``: the machine's likeliest expression; no row unless it is shown."""
    none = pl.DataFrame(schema={"face_id": pl.String, "prediction": pl.String})
    if not settings.show_predictions or settings.label_set != "expressions":
        return none
    names = dict(enumerate(EXPRESSIONS))
    rated = views.query(
        settings.place,
        """SELECT face_id, expression FROM ratings
           QUALIFY row_number() OVER (PARTITION BY face_id ORDER BY rater_id DESC) = 1""",
    )
    best = rated["expression"].list.arg_max().replace_strict(names, return_dtype=pl.String)
    return pl.concat([none, rated.select("face_id", prediction=best)])
