"""Push items other than faces, such as segments and pictures.

Votes come back with those about faces (``sync.pull_votes``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from annotation.label_studio import item_page, projects, users
from annotation.label_studio.item_page import ItemPage
from annotation.label_studio.media import Source
from annotation.label_studio.tasks import (
    PushResult,
    annotator_links,
    open_and_close,
    push,
    shuffle_positions,
)
from annotation.label_studio.workspace import Workspace
from warehouse.errors import SettingsError
from warehouse.storage import atomic, mirror, views
from warehouse.storage.home import Home

_MEDIA_FIELDS = ("video", "sound", "picture")
_CLIP_FPS = 25.0


@dataclass
class ItemPush:
    """Outcome of pushing the items of a page.

    Attributes:
        pushed: tasks made and found.
        left: reason to number of items that got no task.
    """

    pushed: PushResult
    left: dict[str, int] = field(default_factory=dict)


def title_of(workspace: Workspace, page: ItemPage) -> str:
    """Return the title of the project of a page."""
    return f"{workspace.options.project} {page.name}"[:50]


def item_titles(workspace: Workspace) -> list[str]:
    """Return the titles of all item projects that this home ever made."""
    path = workspace.home.studio / "item_projects.json"
    return list(json.loads(path.read_text())) if path.is_file() else []


def push_items(
    workspace: Workspace,
    page_name: str,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ItemPush:
    """Create a task for every item of a page, then open or close tasks.

    Safe to repeat and to interrupt.

    Raises:
        SettingsError: there is no such page, or none of its items can be shown.
        StudioError: the server is unreachable or rejects a request.
    """
    page = item_page.load(page_name)
    rows, left = items(workspace.home, page)
    missing = _missing(workspace, page, rows)
    workspace.fetch_media(
        data[name] for data in map(json.loads, rows["data"]) for name in _MEDIA_FIELDS
        if data.get(name)
    )  # fmt: skip
    title = title_of(workspace, page)
    _remember(workspace, title)
    with workspace.connect() as client:
        first = projects.ensure(workspace, client, page=page, title=title)
        existing = projects.find(workspace, client, [title])
        result = push(
            client,
            rows,
            lambda number: (
                projects.ensure(workspace, client, page=page, title=title, round=number).id
            ),
            rounds=max((one.round for one in existing if one.page == first.page), default=1),
            cap=workspace.options.project_cap,
            lock=f"{workspace.home.salt()} {first.page}",
            progress=on_progress,
            task_of=_task,
        )
        result.url = first.url
        former = [one.id for one in existing if one.page != first.page]
        present = [one.id for one in existing if one.page == first.page] or [first.id]
        open_and_close(client, former, {})
        result.closed, result.reopened = open_and_close(client, present, missing)
        if annotators := users.annotators(workspace.home):
            result.links = annotator_links(client, present[-1], annotators)
    return ItemPush(result, left)


def items(home: Home, page: ItemPage) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the items of a page to push; count those that cannot be shown.

    Columns: ``face_id`` (the item's id) and ``data``, the task's fields as JSON.
    """
    if page.item_kind not in _ITEMS:
        raise SettingsError(
            f"Items of the kind {page.item_kind!r} cannot be sent to annotators",
            got=page.name,
            hint=f"use a page about one of {', '.join(_ITEMS)}",
        )
    left: dict[str, int] = {}
    rows = []
    found = views.query(home, _ITEMS[page.item_kind])
    files = _files(home, found)
    for row in found.iter_rows(named=True):
        reason = _reason(page, row, files)
        if reason:
            left[reason] = left.get(reason, 0) + 1
            continue
        data = {
            "item_kind": page.item_kind, "item_id": row["item_id"], "label_set": page.label_set,
            **{name: value for name, value in row.items() if _is_shown(page, name)},
            **shuffle_positions(row["item_id"]),
        }  # fmt: skip
        rows.append({"face_id": row["item_id"], "data": json.dumps(data), "reason": "coverage"})
    schema = {"face_id": pl.String, "data": pl.String, "reason": pl.String}
    return pl.DataFrame(rows, schema=schema), left


def _reason(page: ItemPage, row: Mapping[str, Any], files: Collection[str]) -> str | None:
    """Return why an item cannot be shown on a page; None if it can."""
    if page.item_kind == "dialogue":
        return None if row["turns"] else "no_words: no turn has a transcript"
    if "picture" in row and row["picture"] not in files:
        return "no_picture: its picture could not be written"
    if "video" in row and row["video"] not in files:
        return "no_video: its video was not cut"
    if page.sound and row.get("sound") not in files:
        return "no_sound: set RISORIUS_KEEP_AUDIO, or use a page without sound"
    if page.media == "statement" and not row.get("statement"):
        return "no_statement: no row of texts is a statement about it"
    return None


def _is_shown(page: ItemPage, name: str) -> bool:
    """Return whether a column of an item becomes a field of its task."""
    # The fields say what an answer points at: spans on sound, a judgement on a statement.
    optional = {"sound": page.sound, "statement": page.media == "statement"}
    return name != "item_id" and optional.get(name, True)


def _files(home: Home, rows: pl.DataFrame) -> set[str]:
    """Return the media keys of items whose files exist."""
    keys: set[str] = set()
    for name in _MEDIA_FIELDS:
        keys.update(rows[name].drop_nulls() if name in rows.columns else ())
    folders = {key.partition("/")[0] for key in keys}
    for folder in folders:
        mirror.sync(home.media / folder)
    present = {
        f"{folder}/{entry.name}"
        for folder in folders
        if (home.media / folder).is_dir()
        for entry in os.scandir(home.media / folder)
    }
    return keys & present


def _task(row: Mapping[str, Any], media: Source) -> dict[str, Any]:
    data = json.loads(row["data"])
    for name in _MEDIA_FIELDS:
        if name in data:
            data[name] = media.address(data[name]) if data[name] else ""
    return {"data": data}


def _missing(workspace: Workspace, page: ItemPage, rows: pl.DataFrame) -> dict[str, int]:
    """Return item to number of votes that it misses."""
    given = views.query(
        workspace.home,
        "SELECT item_kind, item_id, coalesce(label_set, '') AS label_set, count(*) AS n "
        "FROM item_votes GROUP BY ALL",
    )
    own = given.filter(
        (pl.col("item_kind") == page.item_kind) & (pl.col("label_set") == page.label_set)
    )
    votes = dict(own.select("item_id", "n").iter_rows())
    wanted = workspace.options.wanted_votes
    return {item: max(0, wanted - votes.get(item, 0)) for item in rows["face_id"]}


def _remember(workspace: Workspace, title: str) -> None:
    known = item_titles(workspace)
    if title not in known:
        workspace.home.studio.mkdir(parents=True, exist_ok=True)
        path = workspace.home.studio / "item_projects.json"
        atomic.write_text(path, json.dumps([*known, title]))


_ITEMS = {
    "segment": """
        SELECT segment_id AS item_id, video, sound, coalesce(transcript, '') AS transcript,
               coalesce(videos.fps, 25.0) AS fps, end_s - segments.start_s AS duration_s
        FROM segments
        JOIN watchable_videos AS videos
            ON videos.video_id = segments.video_id AND videos.batch = segments.batch
        WHERE segments.verdict = 'kept'
        ORDER BY segments.video_id, segments.start_s, segment_id
    """,
    "clip": f"""
        SELECT clip_id AS item_id, 'clips/' || track_id || '.webm' AS video, NULL AS sound,
               {_CLIP_FPS}::DOUBLE AS fps, end_s - start_s AS duration_s
        FROM clips WHERE verdict = 'kept' ORDER BY clip_id
    """,
    "dialogue": """
        SELECT video_id || '-d-' || dialogue_id AS item_id,
               list({'speaker': coalesce(speaker, '?'), 'text': transcript,
                     'start': start_s, 'end': end_s} ORDER BY start_s) AS turns
        FROM segments
        WHERE verdict = 'kept' AND dialogue_id IS NOT NULL AND transcript IS NOT NULL
        GROUP BY video_id, dialogue_id ORDER BY ALL
    """,
    "video": """
        SELECT video_id AS item_id, 'videos/' || video_id || '.mp4' AS video,
               coalesce(fps, 25.0) AS fps, duration_s
        FROM watchable_videos WHERE duration_s > 0
        QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY batch) = 1 ORDER BY video_id
    """,
    "picture": """
        SELECT video_id AS item_id, 'pictures/' || video_id || '.jpg' AS picture,
               statements.text AS statement
        FROM watchable_videos
        LEFT JOIN (
            SELECT item_id, arg_min(text, (rater_id, position)) AS text
            FROM texts WHERE item_kind = 'picture' AND kind = 'statement' GROUP BY item_id
        ) AS statements ON statements.item_id = video_id
        WHERE duration_s = 0
        QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY batch) = 1 ORDER BY video_id
    """,
}
