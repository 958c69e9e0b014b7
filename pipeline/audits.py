"""What the audits found, for a person at a shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warehouse import lens
from warehouse.home import Home

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 10


@dataclass(frozen=True)
class Findings:
    """Per audit: how many faces, how many flagged, and the worst of them."""

    facts: list[dict[str, Any]]

    def show(self, console: Console) -> None:
        if not self.facts:
            console.print("nothing to audit yet; pull votes first: risorius label pull")
        for audit in self.facts:
            console.print(f"[bold]{audit['audit']}[/]  {audit['flagged']} of {audit['n']} flagged")
            for face in audit["worst"]:
                console.print(f"  {face['score']:.3f}  {face['face_id']}  {face['detail'] or ''}")


def findings(home: Home) -> Findings:
    """Read from the table ``audits``; the lowest scores come first."""
    counts = lens.ask(
        home,
        """SELECT audit, count(*) AS n, count(*) FILTER (flag) AS flagged
           FROM audits GROUP BY ALL ORDER BY audit""",
    )
    worst = lens.ask(
        home,
        f"""SELECT audit, face_id, score, detail FROM audits WHERE flag
            QUALIFY row_number() OVER (PARTITION BY audit ORDER BY score, face_id) <= {_SHOWN}
            ORDER BY audit, score, face_id""",
    ).to_dicts()
    return Findings(
        facts=[
            {**row, "worst": [face for face in worst if face["audit"] == row["audit"]]}
            for row in counts.to_dicts()
        ]
    )
