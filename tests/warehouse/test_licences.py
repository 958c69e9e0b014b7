from __future__ import annotations

import pytest

from warehouse.licences import strictest, terms


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("CC BY 4.0", "CC-BY-4.0"),
        ("cc0", "CC0-1.0"),
        ("apache_2.0", "Apache-2.0"),
        ("MIT", "MIT"),
        ("Research only", "research-only"),
        ("InsightFace-non-commercial", "InsightFace-non-commercial"),
        (None, "unknown"),
        ("", "unknown"),
        ("my own terms", "unknown"),
    ],
)
def test_find__spellings(written: str | None, name: str) -> None:
    assert terms(written).name == name


@pytest.mark.parametrize(
    ("several", "name", "commercial"),
    [
        (["MIT", "CC0"], "MIT", True),
        (["CC-BY-4.0", "CC-BY-SA-4.0"], "CC-BY-SA-4.0", True),
        (["MIT", "InsightFace-non-commercial"], "InsightFace-non-commercial", False),
        (["research-only", None], "unknown", False),
        ([], "unknown", False),
    ],
)
def test_strictest__decides(several: list[str | None], name: str, commercial: bool) -> None:
    found = strictest(several)
    assert (found.name, found.commercial) == (name, commercial)
