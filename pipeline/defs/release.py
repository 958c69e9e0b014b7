"""Release: an immutable dataset version, made on request only."""

import dagster as dg

from pipeline import release_inputs
from pipeline.defs.audit import curated_faces
from pipeline.defs.clips import clips
from pipeline.defs.resources import Workplace
from pipeline.defs.stage import blocking_check, md, stage_asset
from pipeline.defs.synthesis import synthetic_labels
from warehouse import releases


@stage_asset(
    "release",
    deps=[curated_faces, synthetic_labels, clips],
    kinds={"huggingface", "parquet"},
    team="data-engineering",
    table="releases",
)
def release(context: dg.AssetExecutionContext, workplace: Workplace) -> dg.MaterializeResult:
    """Write a release version if anything changed.

    One row per curated face in Hub dataset layout, split by subject, with every vote.
    """
    made = release_inputs.create(workplace.settings())
    context.log.info(f"{made.name} {made.version} at {made.path}, new: {made.created}")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.rows,
            "name": made.name,
            "version": made.version,
            "created": made.created,
            "rows": made.rows,
            "path": dg.MetadataValue.path(str(made.path)),
            "card": md((made.path / "README.md").read_text()[:20_000]),
            "report": dg.MetadataValue.path(str(made.path / "report.html")),
        }
    )


@blocking_check(asset=release)
def release_is_sound(workplace: Workplace) -> dg.AssetCheckResult:
    """Checksums of the newest version match; no subject is in two splits."""
    settings = workplace.settings()
    newest = releases.list_releases(settings.place, name=settings.release)[-1]
    damaged = releases.verify(newest.path)
    leaks = releases.leaks(newest.path)
    return dg.AssetCheckResult(
        passed=not damaged and not leaks,
        metadata={"damaged files": ", ".join(damaged), "subjects in two splits": ", ".join(leaks)},
    )


@blocking_check(asset=release)
def release_terms_allow_its_use(workplace: Workplace) -> dg.AssetCheckResult:
    """No licence forbids the declared use of the newest version."""
    settings = workplace.settings()
    newest = releases.list_releases(settings.place, name=settings.release)[-1]
    facts = releases.show(settings.place, name=settings.release, version=newest.version)
    breaches = releases.breaches(newest.path)
    return dg.AssetCheckResult(
        passed=not breaches,
        metadata={
            "declared use": facts.get("use") or "none",
            "strictest terms": facts["summary"]["licence"]["name"],
            "breaches": "; ".join(breaches),
        },
    )
