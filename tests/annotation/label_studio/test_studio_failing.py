"""A Label Studio that fails one call in five: pushes and pulls end exact, at a later try."""

from __future__ import annotations

import pytest

from tests.annotation.label_studio.conftest import Studio
from tests.benchmarks.faults_services import label_studio

pytestmark = pytest.mark.studio


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_that_fails_one_call_in_five_loses_and_doubles_nothing(studio: Studio) -> None:
    told = label_studio(studio.address, studio.home.media, share=0.2, faces=40, votes=2, seed=5)
    assert told["failed"] > 3, told
    for what in ("faces lost", "faces twice", "votes lost", "votes twice"):
        assert told[what] == 0, told
