"""The dataset card: Hub metadata and a datasheet, written from counted facts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from warehouse.releases import clips
from warehouse.releases.diff import CHANGES
from warehouse.releases.evidence import evidence
from warehouse.releases.pages import environment
from warehouse.releases.schema import SPLITS, features, vote_features
from warehouse.vocabulary import ACTION_UNITS, EXPRESSIONS

FILE = "README.md"

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def render(contents: Mapping[str, Any], *, stored: Mapping[str, int]) -> str:
    """The text of ``README.md``.

    Args:
        contents: the manifest so far, with ``summary`` and ``facts``.
        stored: bytes of the Parquet files per config, ``data``, ``votes`` and ``clips``.
    """
    templates = environment(html=False)
    templates.filters["md"] = escape
    template = templates.get_template("card.md.j2")
    body = template.render(
        **contents,
        title=title(contents),
        expressions=EXPRESSIONS,
        evidence=evidence(contents),
        changes=CHANGES,
        action_unit_codes=[unit.code for unit in ACTION_UNITS],
    )
    return f"---\n{metadata(contents, stored=stored)}---\n\n{body.strip()}\n"


def title(contents: Mapping[str, Any]) -> str:
    """One line: the given title, else the name."""
    given = " ".join(str(contents["facts"].get("title") or "").split())
    return given or f"{contents['name']} {contents['label']}"


def metadata(contents: Mapping[str, Any], *, stored: Mapping[str, int]) -> str:
    """The YAML block between the dashes, without them."""
    import yaml

    summary = contents["summary"]
    sizes = contents["splits"]["sizes"]
    licence = summary["licence"]
    kinds = {row["kind"] for row in summary["raters"]}
    block: dict[str, Any] = {"pretty_name": title(contents), "license": licence["hub"]}
    if licence["hub"] == "other":
        block["license_name"] = licence["name"].lower()
    simulated = "simulated" in kinds
    synthetic = "synthetic" in summary["sources"]
    block |= {
        "task_categories": ["image-classification"],
        "size_categories": [_size_category(summary["rows"])],
        "annotations_creators": _creators(kinds, synthetic=synthetic),
        "tags": [
            "facial-expression-recognition",
            "soft-labels",
            "annotator-disagreement",
            "action-units",
            *(["simulated-annotators"] if simulated else []),
            *(["synthetic"] if synthetic else []),
        ],
        "configs": _configs(sizes, contents.get("clips")),
        "dataset_info": _info(sizes, stored, contents.get("clips")),
    }
    # Indented continuation lines keep a `---` inside a value from ending the block.
    return yaml.safe_dump(block, sort_keys=False, allow_unicode=True, width=100)


def _creators(kinds: set[str], *, synthetic: bool) -> list[str]:
    """What the Hub calls who labelled: people, or machines that stand in for them."""
    machines = synthetic or bool(kinds & {"machine", "simulated"})
    people = kinds & {"person", "self"}
    found = ["crowdsourced"] if people else []
    return found + (["machine-generated"] if machines or not found else [])


def escape(text: object) -> str:
    """Text of others on one line of Markdown, with nothing in it that Markdown or HTML acts on."""
    line = " ".join(str(text).split())
    return (
        re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", line)
        .replace("\\&", "&amp;")
        .replace("\\<", "&lt;")
        .replace("\\>", "&gt;")
    )


def _configs(
    sizes: Mapping[str, Mapping[str, int]], moving: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    default = [
        {"split": split, "path": f"data/{split}-*.parquet"} for split in SPLITS if split in sizes
    ]
    configs: list[dict[str, Any]] = [
        {"config_name": "default", "default": True, "data_files": default}
    ]
    if sizes["votes"]["rows"]:
        votes = [{"split": "train", "path": "votes/votes-*.parquet"}]
        configs.append({"config_name": "votes", "data_files": votes})
    if moving:
        files = [
            {"split": split, "path": f"clips/{split}-*.parquet"}
            for split in SPLITS
            if split in moving["sizes"]
        ]
        configs.append({"config_name": "clips", "data_files": files})
    return configs


def _info(
    sizes: Mapping[str, Mapping[str, int]],
    stored: Mapping[str, int],
    moving: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    faces = [(split, sizes[split]) for split in SPLITS if split in sizes]
    info = [_config_info("default", features(), faces, stored["data"])]
    if sizes["votes"]["rows"]:
        info.append(
            _config_info("votes", vote_features(), [("train", sizes["votes"])], stored["votes"])
        )
    if moving:
        kind = clips.features(sound=moving["sounds"] > 0, flow=moving["flow"] is not None)
        parts = [(split, moving["sizes"][split]) for split in SPLITS if split in moving["sizes"]]
        info.append(_config_info("clips", kind, parts, stored["clips"]))
    return info


def _config_info(
    name: str, kind: Any, parts: list[tuple[str, Mapping[str, int]]], stored_bytes: int
) -> dict[str, Any]:
    return {
        "config_name": name,
        "features": kind._to_yaml_list(),
        "splits": [
            {"name": split, "num_bytes": size["bytes"], "num_examples": size["rows"]}
            for split, size in parts
        ],
        "download_size": stored_bytes,
        "dataset_size": sum(size["bytes"] for _, size in parts),
    }


def _size_category(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), "10M<n<100M")
