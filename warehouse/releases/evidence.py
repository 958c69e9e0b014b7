"""Every number of the card with the query that gives it, over the release's own files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from warehouse.releases.schema import SPLITS
from warehouse.vocabulary import EXPRESSIONS

_FACES, _VOTES = "'data/*.parquet'", "'votes/*.parquet'"
_AGREEMENT = f"""
    WITH answers AS (
        SELECT row_number() OVER () AS i, face_id,
               array_to_string(list_sort(expressions), '+') AS said
        FROM {_VOTES} WHERE NOT was_cancelled AND len(expressions) > 0
    )
    SELECT round(avg((a.said = b.said)::INT), 6)
    FROM answers AS a JOIN answers AS b ON a.face_id = b.face_id AND a.i < b.i
"""


@dataclass(frozen=True)
class Evidence:
    """A number and the DuckDB query, run in the release's folder, that gives it again."""

    what: str
    value: float | int | None
    query: str


def evidence(contents: Mapping[str, Any]) -> list[Evidence]:
    """What card and report state about the rows and votes of a release.

    Args:
        contents: the manifest, with ``summary`` and ``splits``.
    """
    summary = contents["summary"]
    found = list(_of_faces(summary))
    if contents["splits"]["sizes"]["votes"]["rows"]:
        found += _of_votes(summary)
    return found


def _of_faces(summary: Mapping[str, Any]) -> Iterator[Evidence]:
    yield Evidence("faces", summary["rows"], f"SELECT count(*) FROM {_FACES}")
    for column in ("subject", "video"):
        query = f"SELECT count(DISTINCT {column}_id) FROM {_FACES}"
        yield Evidence(f"{column}s", summary[f"{column}s"], query)
    for split in SPLITS:
        if split in summary["splits"]:
            query = f"SELECT count(*) FROM 'data/{split}-*.parquet'"
            yield Evidence(f"faces of {split}", summary["splits"][split]["rows"], query)
    for index, row in enumerate(summary["classes"]):
        share = f"SELECT round(coalesce(avg(soft_label[{index + 1}]::DOUBLE), 0), 6) FROM {_FACES}"
        yield Evidence(f"share of {row['name']}", row["share"], share)
        count = f"SELECT count(*) FROM {_FACES} WHERE expression = {index}"
        yield Evidence(f"faces of {EXPRESSIONS[index]}", row["faces"], count)
    wheres = {
        "faces without a single largest share": ("undecided", "expression IS NULL"),
        "faces without a soft label": ("only_open_set", "soft_label IS NULL"),
    }
    for what, (key, where) in wheres.items():
        yield Evidence(what, summary[key], f"SELECT count(*) FROM {_FACES} WHERE {where}")
    flags = {
        "label issue": "is_label_issue",
        "open set": "is_open_set",
        "near duplicate": "duplicate_of IS NOT NULL",
    }
    for flag, where in flags.items():
        query = f"SELECT count(*) FROM {_FACES} WHERE {where}"
        yield Evidence(f"flagged as {flag}", summary["flags"][flag]["flagged"], query)
    made = summary["sources"].get("synthetic", 0)
    query = f"SELECT count(*) FROM {_FACES} WHERE source = 'synthetic'"
    yield Evidence("synthetic faces", made, query)


def _of_votes(summary: Mapping[str, Any]) -> Iterator[Evidence]:
    count = f"SELECT count(*) FROM {_VOTES} WHERE"
    yield Evidence("votes", summary["votes"], f"{count} NOT was_cancelled")
    yield Evidence("skips", summary["skips"], f"{count} was_cancelled")
    for row in summary["raters"]:
        query = f"{count} NOT was_cancelled AND rater_kind = '{row['kind']}'"
        yield Evidence(f"votes of {row['kind']} raters", row["votes"], query)
    if summary["agreement"] is not None:
        agreed = " ".join(_AGREEMENT.split())
        yield Evidence("agreement of pairs", summary["agreement"], agreed)
