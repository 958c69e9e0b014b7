"""The filmed people: each judges the faces of their own subject, in a project of their own.

The open-source server shows every project to every member, and hands out whatever a project holds.
So a filmed person's project holds nothing but their faces, and what they answer there takes no
observer's place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pipeline import studio
from pipeline.settings import Settings
from warehouse.storage import views
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from annotation.label_studio.client import Client
    from annotation.label_studio.stream import Stepped
    from annotation.label_studio.users import Person


def push_filmed(settings: Settings, client: Client) -> dict[str, str]:
    """Give every filmed person a task for each of their faces; pseudonym to the project's link.

    Somebody without a subject, or whose subject has no face yet, gets none.

    Raises:
        StudioError: the server is away or refuses.
    """
    from annotation.label_studio.task_order import own_orders
    from annotation.label_studio.tasks import push

    links: dict[str, str] = {}
    for person in studio.filmed(settings):
        mine = faces_of(settings.place, person)
        if mine.is_empty():
            continue
        studio.bring(settings, [*mine["crop"], *mine["context"]])
        name = studio.pseudonym_of(settings, person)
        made = studio.ensure(settings, client, title=studio.title_of(settings, person), votes=1)
        push(client, made.id, mine)
        links |= own_orders(client, made.id, [name])
    return links


def step_filmed(settings: Settings, client: Client) -> Stepped:
    """Keep each filmed person's stream to the faces that are theirs and lack their answer."""
    from annotation.label_studio.marks import page_fingerprint
    from annotation.label_studio.stream import Stepped, keep_in_step

    closed, opened, page = 0, 0, page_fingerprint(studio.page_of(settings))
    for person in studio.filmed(settings):
        owed = dict.fromkeys(_owed(settings, person), 1)
        for found in studio.projects(settings, client, person=person):
            done = keep_in_step(client, [found.id], owed if found.page == page else {})
            closed, opened = closed + done.closed, opened + done.opened
    return Stepped(closed=closed, opened=opened)


def faces_of(home: Home, person: Person) -> pl.DataFrame:
    """``face_id, crop, context, reason`` of the faces of a filmed person's subject."""
    every = views.query(home, "SELECT * FROM subject_faces ORDER BY face_id")
    mine = every.filter(pl.col("subject_id") == (person.subject or ""))
    return mine.select("face_id", "crop", "context", reason=pl.lit("self"))


def _owed(settings: Settings, person: Person) -> list[str]:
    said = views.query(settings.place, "SELECT face_id, rater_id, label_set FROM self_reports")
    mine = said.filter(
        (pl.col("rater_id") == studio.pseudonym_of(settings, person))
        & (pl.col("label_set").fill_null("expressions") == settings.label_set)
    )
    faces = faces_of(settings.place, person)
    return faces.join(mine, on="face_id", how="anti")["face_id"].to_list()
