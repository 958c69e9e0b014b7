"""Foreign text reaches pages as plain text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import polars as pl
import pytest

from annotation.label_studio.labeling_config import Page, labeling_config
from pipeline import reporting

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![seen](http://tracker.example/pixel.png)",
    "a | b\n| --- |\n<b>",
    "`</code><script>`",
    "&lt;script&gt; \\[x](y)",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_dagster_tables__text_only(text: str) -> None:
    shown = reporting.table(pl.DataFrame({"file": [text], "reason": ["no_face: none in 3 frames"]}))
    head, rule, *rows = shown.splitlines()
    assert (head, rule) == ("| file | reason |", "| --- | --- |")
    (row,) = rows
    assert "<" not in row
    assert not re.search(r"(?<!\\)\[", row)
    assert not re.search(r"(?<!\\)`", row)
    assert "no_face: none in 3 frames" in row
    # Cells end where they should: bars of the text are escaped.
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


PAGES = (
    Page(),
    Page(label_set="coarse"),
    Page(mood=True, units=(12,), compounds=True, free_label=True, clip=True, predictions=True),
)


@pytest.mark.parametrize("page", PAGES)
def test_labelling_page__no_task_text_as_html(page: Page) -> None:
    """A task's words may not reach ``HyperText``, which renders them."""
    bound = [
        (element.tag, name, value)
        for element in ElementTree.fromstring(labeling_config(page)).iter()
        for name, value in element.attrib.items()
        if "$" in value
    ]
    assert bound, "the page shows nothing of its task"
    assert {tag for tag, _, _ in bound} <= {"Image", "Video", "Text", "Header"}, bound
