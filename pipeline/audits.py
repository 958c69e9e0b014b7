"""What the audits found, for a person at a shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from warehouse.errors import SettingsError
from warehouse.storage import views
from warehouse.storage.home import Home

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 10


class AuditSettings(BaseSettings):
    """Thresholds of the audits, from ``RISORIUS_AUDIT_*``; how each default was found stands with
    its audit, and the page of `curated_faces` shows what other values would do."""

    model_config = SettingsConfigDict(env_prefix="RISORIUS_AUDIT_", extra="ignore")

    label_noise: float = Field(default=0.45, ge=0, le=1, description="lower scores are flagged")
    open_set: float = Field(default=0.5, ge=0, le=1, description="lower scores are flagged")


def thresholds() -> AuditSettings:
    """The thresholds as set.

    Raises:
        SettingsError: a value does not fit.
    """
    try:
        return AuditSettings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]).upper()
        raise SettingsError(
            "a threshold within 0 and 1", got=first["msg"], hint=f"change RISORIUS_AUDIT_{name}"
        ) from None


@dataclass(frozen=True)
class Findings:
    """Per audit: faces, flagged ones, the mean score and the worst; last the decisions."""

    facts: list[dict[str, Any]]

    def show(self, console: Console) -> None:
        if not self.facts:
            console.print("nothing to audit yet; pull votes first: risorius label pull")
        for audit in self.facts:
            score = "" if audit["score"] is None else f", mean score {audit['score']:.3f}"
            console.print(
                f"[bold]{audit['audit']}[/]  {audit['flagged']} of {audit['n']} flagged{score}"
            )
            if "decisions" in audit:
                console.print("  " + ", ".join(f"{k} {v}" for k, v in audit["decisions"].items()))
            for face in audit["worst"]:
                score = "    -" if face["score"] is None else f"{face['score']:.3f}"
                console.print(f"  {score}  {face['face_id']}  {face['detail'] or ''}")


def findings(home: Home) -> Findings:
    """Read from the table ``audits``; the lowest scores come first."""
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
    facts = [
        {**row, "worst": [face for face in worst if face["audit"] == row["audit"]]}
        for row in counts.to_dicts()
    ]
    return Findings(facts=facts + _decisions(home) if facts else [])


def _decisions(home: Home) -> list[dict[str, Any]]:
    from annotation.audit import curation

    decided = views.query(home, "SELECT * FROM decided_faces")
    if decided.is_empty():
        return []
    again = curation.review(decided).with_columns(detail=pl.col("reasons").list.join(", "))
    count = dict(decided["decision"].value_counts().sort("decision").iter_rows())
    return [
        {
            "audit": "curation",
            "n": decided.height,
            "flagged": decided.height - count.get("keep", 0),
            "score": None,
            "decisions": count,
            "worst": again.head(_SHOWN).select("face_id", "score", "detail").to_dicts(),
        }
    ]
