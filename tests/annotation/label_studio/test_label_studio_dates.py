"""The clock of a server, read from its responses."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from annotation.label_studio.client import date_of

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "time"),
    [
        ("Sat, 28 Nov 2026 12:00:00 GMT", NOON),
        ("Sat, 28 Nov 2026 12:00:00 -0000", NOON),
        ("Sat, 28 Nov 2026 13:00:00 +0100", NOON),
        ("Sat, 28 Nov 2026 12:00:00", NOON),
        ("", None),
        ("yesterday", None),
        ("Sat, 99 Nov 2026 12:00:00 GMT", None),
    ],
)
def test_date_of__forms_of_the_header(header: str, time: datetime | None) -> None:
    assert date_of(header) == time
