"""The command ``risorius audit``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from pipeline.cli.context import Session, command

if TYPE_CHECKING:
    from rich.console import Console

    from warehouse.storage.home import Home

app = typer.Typer()

_SHOWN = 10


@command(app, "audit")
def audit(session: Session) -> None:
    """Run the audits over all labelled faces and print their findings."""
    from pipeline import runs

    home = session.home()
    with session.watching():
        runs.materialize(home, "audit")
    found = findings(home)
    session.answer(found, partial(show, found))


def findings(home: Home) -> list[dict[str, Any]]:
    """Return counts and worst faces per audit, then the decisions."""
    from warehouse.storage import views

    counts = views.query(
        home,
        """SELECT audit, count(*) AS n, count(*) FILTER (flag) AS flagged, avg(score) AS score
           FROM audits GROUP BY ALL ORDER BY audit""",
    )
    worst = views.query(
        home,
        f"""SELECT audit, face_id, score, detail FROM audits WHERE flag
            QUALIFY row_number() OVER (PARTITION BY audit ORDER BY score, face_id) <= {_SHOWN}
            ORDER BY audit, score, face_id""",
    ).to_dicts()
    found = [
        {**row, "worst": [face for face in worst if face["audit"] == row["audit"]]}
        for row in counts.to_dicts()
    ]
    return found + _decisions(home) if found else []


def show(found: list[dict[str, Any]], console: Console) -> None:
    """Print findings for people."""
    if not found:
        console.print("nothing to audit yet; pull votes first: risorius label pull")
    for audit in found:
        score = "" if audit["score"] is None else f", mean score {audit['score']:.3f}"
        console.print(
            f"[bold]{audit['audit']}[/]  {audit['flagged']} of {audit['n']} flagged{score}"
        )
        if "decisions" in audit:
            console.print("  " + ", ".join(f"{k} {v}" for k, v in audit["decisions"].items()))
        for face in audit["worst"]:
            score = "    -" if face["score"] is None else f"{face['score']:.3f}"
            console.print(f"  {score}  {face['face_id']}  {face['detail'] or ''}")


def _decisions(home: Home) -> list[dict[str, Any]]:
    import polars as pl

    from annotation.audit import curation
    from warehouse.storage import views

    decided = views.query(home, "SELECT * FROM decided_faces")
    if decided.is_empty():
        return []
    review = curation.review(decided).with_columns(detail=pl.col("reasons").list.join(", "))
    count = dict(decided["decision"].value_counts().sort("decision").iter_rows())
    return [
        {
            "audit": "curation",
            "n": decided.height,
            "flagged": decided.height - count.get("keep", 0),
            "score": None,
            "decisions": count,
            "worst": review.head(_SHOWN).select("face_id", "score", "detail").to_dicts(),
        }
    ]
