"""The labelling page with pictures and a clip from the home's bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.tasks import annotator_links
from annotation.label_studio.users import Account
from tests import browser
from tests.annotation.label_studio.conftest import Studio
from tests.annotation.label_studio.far import Far, far_home, s3_url
from tests.annotation.label_studio.test_label_studio_annotation_session import (
    PICTURES,
    _clip,
    answer,
    pictures,
    sitting,
)
from tests.object_store import BUCKET
from warehouse.storage import atomic

__all__ = ["pictures", "s3_url"]

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.slow, pytest.mark.timeout(600)]

READY = "return document.querySelector('video')?.readyState ?? 0"
DRAWING = "return document.querySelector('img[src*=resolve]')?.naturalWidth ?? 0"


@pytest.fixture
def far(studio: Studio, s3_url: str, tmp_path: Path) -> Iterator[Far]:
    with far_home(studio, s3_url, tmp_path, "page") as made:
        yield made


@pytest.mark.parametrize("presign", [True, False])
def test_page__crop_frame_and_clip_from_the_bucket(
    far: Far,
    studio: Studio,
    client: LabelStudioClient,
    voters: list[Account],
    pictures: Path,
    presign: bool,
) -> None:
    from selenium.webdriver.common.keys import Keys

    made = far.office(2, show_clips=True, wanted_votes=1, studio_s3_presign=presign)
    clip = (studio.home.media / _clip(studio)).read_bytes()
    atomic.write_bytes(far.home.media / "clips" / "drawn-0000.webm", clip)
    number = max(made.push().tasks)
    far.proxy.passed.clear()
    (link,) = annotator_links(client, number, ["annotator"]).values()
    with sitting(client.url, voters[0], link) as chrome:
        assert chrome.execute_script(PICTURES) == [224, 320]
        browser.until(chrome, lambda: chrome.execute_script(READY) >= 2)
        # The player's clock takes the place of its spinner.
        browser.until(chrome, lambda: "00:00" in chrome.page_source.replace("</span>", ""))
        chrome.save_screenshot(str(pictures / f"studio-bucket-{presign}.png"))
        answer(chrome, client, number, "7", Keys.ENTER)
        chrome.get(f"{client.url}/projects/{number}/data?labeling=1")
        browser.until(chrome, lambda: chrome.execute_script(DRAWING) > 0)
        complaints = [line for line in browser.errors(chrome) if "/heidi-tips" not in line]
    assert complaints == []
    kinds = {path.removeprefix(f"{BUCKET}/{far.prefix}/media/").partition("/")[0]
             for path in far.proxy.passed}  # fmt: skip
    assert kinds == {"crops", "contexts", "clips", "guide"}
    assert made.pull()[number].n_standing == 1
    assert made.ask("SELECT answer.expressions FROM current_votes") == [(["fear"],)]
