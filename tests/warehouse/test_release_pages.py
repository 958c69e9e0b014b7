"""Card and report: escaping, the Hub's card parser, rendering."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from warehouse import releases
from warehouse.releases.dataset_card import card_queries, escape
from warehouse.releases.report import flow
from warehouse.storage.home import Home

Inputs = Callable[..., dict[str, Any]]

HOSTILE = [
    "a: b # c \"d\" 'e' {f} [g] !h &i *j %k @l `m` |n|",
    "---\nlicense: cc0-1.0\n---\n",
    "<script>alert(1)</script><img src=http://x/y onerror=alert(1)>",
    "line one\r\nline two\ttab \\ back\u2028slash",
    "{{ 7 * 7 }} {% raw %} émoji 😀 \u202e",
    "- yes\n? no\n~",
    "x\n\n---\n\n# Heading | cell |\n| a | b |",
]


def hostile(given: dict[str, Any], text: str) -> dict[str, Any]:
    given["rows"] = given["rows"].with_columns(licence=pl.lit(text))
    texts = ("title", "description", "motivation", "collection", "consent", "annotators")
    given["facts"] |= dict.fromkeys((*texts, "soft_label_method", "au_provenance"), text)
    given["facts"] |= {
        "limits": [text],
        "machine_raters": [text],
        "models": [{"name": text, "role": text, "licence": text}],
        "audits": [{"audit": text, "n": 3, "flagged": 1, "score": 0.5, "note": text}],
        "rater_quality": [{"rater_id": text, "n_votes": 1, "weight": 0.5, "agreement": None}],
        "stages": [{"stage": text, "verdict": "dropped", "reason": text, "n": 1}],
    }
    given["settings"] = {text: text}
    return given


class Tags(HTMLParser):
    """What a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("text", HOSTILE)
def test_card_and_report__hostile_text_escaped(home: Home, inputs: Inputs, text: str) -> None:
    import yaml
    from huggingface_hub import DatasetCard

    release = releases.build(home, **hostile(inputs(home, {"ann": 3, "bob": 1}), text))
    content = (release.path / "README.md").read_text()
    data = DatasetCard(content).data
    assert data.pretty_name == " ".join(text.split())
    assert data.license == "unknown"
    block = yaml.safe_load(content.split("\n---\n")[0])
    assert [config["config_name"] for config in block["configs"]] == ["default", "votes"]
    body = content.split("\n---\n", 1)[1]
    assert "<script" not in body
    assert "\n---\n" not in body
    page = Tags()
    page.feed((release.path / "report.html").read_text())
    assert page.open == []
    assert "script" not in page.names
    assert page.handlers == []
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert len(releases.load("faces", home=home)["train"]) == 3


def test_card__parsed_by_hub(home: Home, inputs: Inputs) -> None:
    from datasets import DatasetInfo
    from huggingface_hub import DatasetCard

    release = releases.build(home, **inputs(home))
    card = DatasetCard.load(release.path / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["size_categories"] == ["n<1K"]
    info = {part["config_name"]: DatasetInfo._from_yaml_dict(part) for part in data["dataset_info"]}
    for config in ("default", "votes"):
        loaded = releases.load("faces", home=home, config=config)
        assert info[config].features == loaded["train"].features
        declared = {name: split.num_examples for name, split in info[config].splits.items()}
        assert declared == {name: len(part) for name, part in loaded.items()}
    stored = sum(file.stat().st_size for file in (release.path / "data").iterdir())
    assert info["default"].download_size == stored
    assert "60 of 60 votes come from 3 simulated raters" in card.text


def test_card__numbers_match_queries(home: Home, inputs: Inputs) -> None:
    import duckdb

    release = releases.build(home, **inputs(home))
    facts = releases.show(home, name="faces")
    card = (release.path / "README.md").read_text()
    rows = card_queries(facts)
    assert len(rows) > 25
    for row in rows:
        query = row.query.replace("'data/", f"'{release.path}/data/")
        query = query.replace("'votes/", f"'{release.path}/votes/")
        (answer,) = duckdb.sql(query).fetchall()[0]
        assert answer == pytest.approx(row.value, abs=2e-6), row
        assert f"| {row.name} | {row.value} | `{row.query}` |" in card


def test_card__declared_groups(home: Home, inputs: Inputs) -> None:
    given = inputs(home, {"ann": 2})
    silent = (releases.build(home, **given).path / "README.md").read_text()
    assert "## Groups" not in silent
    groups = [{"group": "age", "value": "over 60", "subjects": 1, "faces": 2}]
    given["facts"] |= {"groups": groups}
    card = (releases.build(home, **given).path / "README.md").read_text()
    assert "| age | over 60 | 1 | 2 |" in card
    assert "Groups of people are not declared" not in card


def test_card__agreement(home: Home, inputs: Inputs) -> None:
    # Ten even faces with three equal answers, ten odd ones with three different: half the pairs.
    release = releases.build(home, **inputs(home))
    assert "same answer in 50.0 % of all pairs" in (release.path / "README.md").read_text()
    summary = releases.show(home, name="faces")["summary"]
    assert summary["disagreed"] == {"1": 10, "3": 10}
    assert summary["undecided"] == 10
    assert sum(row["faces"] for row in summary["classes"]) == 10
    assert sum(row["share"] for row in summary["classes"]) == pytest.approx(1, abs=1e-5)
    assert release.rows == 20


def test_report__not_measured(home: Home, inputs: Inputs) -> None:
    given = inputs(home, {"ann": 2})
    given["rows"] = given["rows"].with_columns(
        au=None, is_label_issue=None, label_quality=None, licence=None
    )
    given["votes"] = given["votes"].filter(pl.col("rater_id") == "simulated-00000000")
    given["facts"] = {}
    release = releases.build(home, **given)
    text = (release.path / "README.md").read_text()
    assert "No face has two votes" in text
    assert "| label issue | 0 | 0 |" in text
    assert "do not assume that the people shown gave it" in text
    assert "unknown: No licence was stated" in text
    assert "No face of this release has action units" in (release.path / "report.html").read_text()


def test_report__gallery_order(home: Home, inputs: Inputs) -> None:
    release = releases.build(home, **inputs(home))
    page = (release.path / "report.html").read_text()
    gallery = page[page.index('id="gallery"') : page.index('id="audits"')]
    shown = re.findall(r'alt="face ([^"]+)"', gallery)
    rows = {row["face_id"]: row["entropy"] for row in inputs(home)["rows"].to_dicts()}
    assert len(shown) == 20
    assert [rows[face] for face in shown] == sorted(rows.values())
    flagged = page[page.index('id="audits"') : page.index('id="origin"')]
    assert "Likely label errors" in flagged
    assert "Open-set images" in flagged


def test_report__stage_counts() -> None:
    counts = [
        {"stage": "faces", "verdict": "dropped", "reason": "too_small", "n": 3},
        {"stage": "faces", "verdict": "kept", "reason": None, "n": 6},
        {"stage": "faces", "verdict": "failed", "reason": "torn", "n": 1},
        {"stage": "release", "verdict": "kept", "reason": None, "n": 0},
    ]
    faces, release = flow(counts)
    assert [segment["verdict"] for segment in faces["segments"]] == ["kept", "dropped", "failed"]
    assert (faces["total"], faces["kept_percent"]) == (10, 60.0)
    assert sum(segment["share"] for segment in faces["segments"]) == pytest.approx(100)
    assert (release["total"], release["kept_percent"]) == (0, 0.0)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain text, 1.5 (fine)", "plain text, 1.5 (fine)"),
        ("a|b", r"a\|b"),
        ("<b>&", r"&lt;b&gt;&amp;"),
        ("a\nb", "a b"),
        (3, "3"),
    ],
)
def test_card__markdown_escaped(text: object, escaped: str) -> None:
    assert escape(text) == escaped


@pytest.mark.slow
@pytest.mark.browser
def test_report__light_and_dark(home: Home, inputs: Inputs, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    release = releases.build(home, **inputs(home))
    brightness = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        shot = tmp_path / f"{scheme}.png"
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--blink-settings=preferredColorScheme={number}",
                f"--user-data-dir={tmp_path / scheme}",
                "--window-size=1100,2600",
                f"--screenshot={shot}",
                (release.path / "report.html").as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        pixels = np.asarray(Image.open(shot).convert("RGB"))
        brightness[scheme] = np.median(pixels)
        # Bars, strips and faces: a page of text alone has a handful of colours.
        assert len(np.unique(pixels.reshape(-1, 3)[::7], axis=0)) > 500
    assert brightness["light"] > 230
    assert brightness["dark"] < 60
