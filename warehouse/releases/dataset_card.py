"""Render the dataset card: Hub metadata and a datasheet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from warehouse.releases import clips, items
from warehouse.releases.diff import CHANGES
from warehouse.releases.schema import SPLITS, features, vote_features
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

if TYPE_CHECKING:
    import jinja2

FILE = "README.md"

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)

_FACES, _VOTES = "'data/*.parquet'", "'votes/*.parquet'"
_AGREEMENT = f"""
    WITH answers AS (
        SELECT row_number() OVER () AS i, face_id,
               array_to_string(list_sort(expressions), '+') AS answer
        FROM {_VOTES} WHERE NOT was_cancelled AND len(expressions) > 0
    )
    SELECT round(avg((a.answer = b.answer)::INT), 6)
    FROM answers AS a JOIN answers AS b ON a.face_id = b.face_id AND a.i < b.i
"""


def render(contents: Mapping[str, Any], *, stored: Mapping[str, int]) -> str:
    """Return the text of ``README.md``.

    Args:
        contents: the manifest so far, with ``summary`` and ``facts``.
        stored: bytes of the Parquet files per config folder: ``data``, ``votes``, ``clips`` ….
    """
    body = (
        environment(html=False)
        .get_template("card.md.j2")
        .render(
            **({"items": {}, "segments_left_out": {}} | dict(contents)),
            title=title(contents),
            expressions=EXPRESSIONS,
            queries=card_queries(contents),
            change_names=CHANGES,
            action_unit_codes=[unit.code for unit in ACTION_UNITS],
        )
    )
    return f"---\n{_metadata(contents, stored=stored)}---\n\n{body.strip()}\n"


@cache
def environment(*, html: bool) -> jinja2.Environment:
    """Return the templates of this package; an undefined name is an error.

    One per process: compiling a template takes longer than filling it.

    Args:
        html: escape every value. The Markdown template calls its own filter for that.
    """
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.PackageLoader("warehouse.releases"),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    found.filters["md"] = escape
    found.filters["thousands"] = lambda number: f"{number:,}".replace(",", " ")
    return found


def title(contents: Mapping[str, Any]) -> str:
    """Return the title among the facts on one line, or name and version."""
    given = " ".join(str(contents["facts"].get("title") or "").split())
    return given or f"{contents['name']} {contents['label']}"


def escape(text: object) -> str:
    """Return text as one line without active Markdown or HTML."""
    line = " ".join(str(text).split())
    return (
        re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", line)
        .replace("\\&", "&amp;")
        .replace("\\<", "&lt;")
        .replace("\\>", "&gt;")
    )


@dataclass(frozen=True)
class CardQuery:
    """A number of the card and the DuckDB query that computes it."""

    name: str
    value: float | int | None
    query: str


def card_queries(contents: Mapping[str, Any]) -> list[CardQuery]:
    """Return the query of every number that the card states.

    Args:
        contents: the manifest, with ``summary`` and ``splits``.
    """
    summary = contents["summary"]
    found = list(_face_queries(summary, contents.get("synthetic")))
    if contents["splits"]["sizes"]["votes"]["rows"]:
        found += _vote_queries(summary)
    return found


def _face_queries(
    summary: Mapping[str, Any], made: Mapping[str, Any] | None
) -> Iterator[CardQuery]:
    count = f"SELECT count(*) FROM {_FACES}"
    yield CardQuery("faces", summary["rows"], count)
    for column in ("subject", "video"):
        query = f"SELECT count(DISTINCT {column}_id) FROM {_FACES}"
        yield CardQuery(f"{column}s", summary[f"{column}s"], query)
    for split in SPLITS:
        if split in summary["splits"]:
            query = f"SELECT count(*) FROM 'data/{split}-*.parquet'"
            yield CardQuery(f"faces of {split}", summary["splits"][split]["rows"], query)
    for index, row in enumerate(summary["classes"]):
        share = f"SELECT round(coalesce(avg(soft_label[{index + 1}]::DOUBLE), 0), 6) FROM {_FACES}"
        yield CardQuery(f"share of {row['name']}", row["share"], share)
        query = f"{count} WHERE expression = {index}"
        yield CardQuery(f"faces of {row['name']}", row["faces"], query)
    flags = summary["flags"]
    for name, value, where in (
        ("faces without a single largest share", summary["undecided"], "expression IS NULL"),
        ("faces without a soft label", summary["only_open_set"], "soft_label IS NULL"),
        ("flagged as label issue", flags["label issue"]["flagged"], "is_label_issue"),
        ("flagged as open set", flags["open set"]["flagged"], "is_open_set"),
        ("flagged as near duplicate", flags["near duplicate"]["flagged"],
         "duplicate_of IS NOT NULL"),
        ("synthetic faces", summary["sources"].get("synthetic", 0), "source = 'synthetic'"),
    ):  # fmt: skip
        yield CardQuery(name, value, f"{count} WHERE {where}")
    if made is not None:
        query = "SELECT count(*) FROM 'synthetic/*.parquet'"
        yield CardQuery("faces of config synthetic", made["rows"], query)


def _vote_queries(summary: Mapping[str, Any]) -> Iterator[CardQuery]:
    count = f"SELECT count(*) FROM {_VOTES} WHERE"
    yield CardQuery("votes", summary["votes"], f"{count} NOT was_cancelled")
    yield CardQuery("skips", summary["skips"], f"{count} was_cancelled")
    for row in summary["raters"]:
        query = f"{count} NOT was_cancelled AND rater_kind = '{row['kind']}'"
        yield CardQuery(f"votes of {row['kind']} raters", row["votes"], query)
    if summary["agreement"] is not None:
        query = " ".join(_AGREEMENT.split())
        yield CardQuery("agreement of pairs", summary["agreement"], query)


def _metadata(contents: Mapping[str, Any], *, stored: Mapping[str, int]) -> str:
    """Return the YAML block between the dashes."""
    import yaml

    summary = contents["summary"]
    licence = summary["licence"]
    kinds = {row["kind"] for row in summary["raters"]}
    block: dict[str, Any] = {"pretty_name": title(contents), "license": licence["hub"]}
    if licence["hub"] == "other":
        block["license_name"] = licence["name"].lower()
    synthetic = bool(summary["synthesis"])
    machines = synthetic or bool(kinds & {"machine", "simulated"})
    creators = ["crowdsourced"] if kinds & {"person", "self"} else []
    configs = list(_configs(contents, stored))
    block |= {
        "task_categories": ["image-classification"],
        "size_categories": [
            next((name for limit, name in _SIZES if summary["rows"] < limit), "10M<n<100M")
        ],
        "annotations_creators": creators
        + (["machine-generated"] if machines or not creators else []),
        "tags": [
            "facial-expression-recognition",
            "soft-labels",
            "annotator-disagreement",
            "action-units",
            *(["simulated-annotators"] if "simulated" in kinds else []),
            *(["synthetic"] if synthetic else []),
        ],
        "configs": [config for config, _ in configs],
        "dataset_info": [info for _, info in configs],
    }
    # Indented continuation lines keep a `---` inside a value from ending the block.
    text: str = yaml.safe_dump(block, sort_keys=False, allow_unicode=True, width=100)
    return text


def _configs(
    contents: Mapping[str, Any], stored: Mapping[str, int]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the entries of ``configs`` and ``dataset_info`` for each config."""
    sizes, clip_facts = contents["splits"]["sizes"], contents.get("clips")
    parts: list[tuple[str, str, Any, dict[str, Mapping[str, int]]]] = [
        ("default", "data", features(), {name: sizes[name] for name in SPLITS if name in sizes})
    ]
    if made := contents.get("synthetic"):
        parts.append(("synthetic", "synthetic", features(), {"train": made}))
    if sizes["votes"]["rows"]:
        parts.append(("votes", "votes", vote_features(), {"train": sizes["votes"]}))
    if clip_facts:
        kind = clips.features(sound=clip_facts["sounds"] > 0, flow=clip_facts["flow"] is not None)
        split_sizes = clip_facts["sizes"]
        parts.append(
            ("clips", "clips", kind, {name: split_sizes[name] for name in SPLITS
                                      if name in split_sizes})
        )  # fmt: skip
    for config, facts in (contents.get("items") or {}).items():
        split_sizes = {name: facts["sizes"][name] for name in SPLITS if name in facts["sizes"]}
        parts.append((config, config, items.features_of(config, facts), split_sizes))
    for config, folder, kind, splits in parts:
        yield (
            {
                "config_name": config,
                **({"default": True} if config == "default" else {}),
                "data_files": [
                    {"split": split,
                     "path": f"{folder}/{'votes' if config == 'votes' else split}-*.parquet"}
                    for split in splits
                ],
            },
            {
                "config_name": config,
                "features": kind._to_yaml_list(),
                "splits": [
                    {"name": split, "num_bytes": size["bytes"], "num_examples": size["rows"]}
                    for split, size in splits.items()
                ],
                "download_size": stored[folder],
                "dataset_size": sum(size["bytes"] for size in splits.values()),
            },
        )  # fmt: skip
