"""Which found face an annotated box means."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.faces import labelled

CORNERS = np.array([[0, 0, 100, 100, 0.9], [200, 0, 300, 100, 0.9]], dtype=np.float32)


@pytest.mark.parametrize(
    ("box", "index"),
    [
        ((0, 0, 100, 100), 0),
        ((190, 10, 100, 100), 1),
        # The same area, half of it shared: 50 / 150 of the union.
        ((50, 0, 100, 100), 0),
        # A quarter shared: 25 / 175.
        ((75, 0, 100, 100), None),
        ((400, 400, 50, 50), None),
        ((0, 0, 0, 0), None),
    ],
)
def test_best__overlap_of_a_third(box: labelled.Box, index: int | None) -> None:
    assert labelled.best(box, CORNERS) == index


def test_best__no_face() -> None:
    assert labelled.best((0, 0, 10, 10), np.zeros((0, 5), np.float32)) is None
