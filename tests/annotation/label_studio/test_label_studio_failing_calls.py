"""Push and pull against a Label Studio that fails one call in five."""

from __future__ import annotations

import pytest

from tests.annotation.label_studio.conftest import Studio
from tests.benchmarks.faults_services import label_studio

pytestmark = pytest.mark.studio


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_push_and_pull__one_call_in_five_fails(studio: Studio) -> None:
    results = label_studio(studio.address, studio.home.media, share=0.2, faces=40, votes=2, seed=5)
    assert results["failed"] > 3, results
    for what in ("faces lost", "faces twice", "votes lost", "votes twice"):
        assert results[what] == 0, results
