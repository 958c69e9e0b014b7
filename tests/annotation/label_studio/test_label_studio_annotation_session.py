"""Three annotators use the page by keys; votes are edited and deleted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from annotation.label_studio import projects
from annotation.label_studio.client import LabelStudioClient
from annotation.label_studio.labeling_config import Page
from annotation.label_studio.tasks import annotator_links
from annotation.label_studio.users import Account
from tests import browser
from tests.annotation.label_studio.conftest import Studio, drawn_face, faces, push
from tests.annotation.label_studio.test_label_studio_projects import Office, office

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

__all__ = ["office"]

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.slow, pytest.mark.timeout(600)]

PICTURES = "return [...document.querySelectorAll('.lsf-image img')].map(i => i.naturalWidth)"
TICKED = "return document.querySelectorAll('.lsf-choice input:checked').length"
NUMBER = "return document.querySelector('.lsf-current-task__task-id')?.childNodes[0]?.textContent"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go; ``RISORIUS_SHOTS`` names a folder to keep them."""
    kept = os.environ.get("RISORIUS_SHOTS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def press(chrome: Chrome, *keys: str) -> None:
    """Press keys one after the other; hold Control if it is among them."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    held = [key for key in keys if key == Keys.CONTROL]
    chain = ActionChains(chrome)
    for key in held:
        chain = chain.key_down(key)
    chain = chain.send_keys(*(key for key in keys if key not in held))
    for key in held:
        chain = chain.key_up(key)
    chain.perform()


def loaded(chrome: Chrome) -> bool:
    widths = chrome.execute_script(PICTURES)
    return len(widths) == 2 and min(widths) > 0


@contextmanager
def sitting(url: str, person: Account, link: str) -> Iterator[Chrome]:
    """The person's browser at their own stream, instructions read."""
    from selenium.webdriver.common.keys import Keys

    with browser.chromium() as chrome:
        browser.sign_in(chrome, url, person.email, person.password)
        chrome.get(link)
        browser.until(chrome, lambda: "Labeling Instructions" in chrome.page_source)
        press(chrome, Keys.ESCAPE)
        browser.until(chrome, lambda: loaded(chrome) and chrome.execute_script(TICKED) == 1)
        yield chrome


def answer(chrome: Chrome, client: LabelStudioClient, number: int, *keys: str) -> int:
    """Press keys for the face on the page; return its task once stored."""
    task = int(browser.until(chrome, lambda: chrome.execute_script(NUMBER)))
    _, before = client.counts(number)
    press(chrome, *keys)
    browser.until(chrome, lambda: client.counts(number)[1] == before + 1)

    def next_face() -> bool:
        done = "No more" in chrome.page_source or "no tasks" in chrome.page_source.lower()
        other = chrome.execute_script(NUMBER)
        return done or (
            other is not None and int(other) != task and loaded(chrome)
            and chrome.execute_script(TICKED) == 1
        )  # fmt: skip

    browser.until(chrome, next_face)
    return task


def test_page__vote_edit_delete_and_skip(
    office: Callable[..., Office], client: LabelStudioClient, voters: list[Account]
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    made = office(4, wanted_votes=3)
    asked = made.push()
    (number,) = asked.tasks
    names = [person.rater_id for person in voters]
    face_of = {
        task["id"]: task["data"]["face_id"]
        for task in client.tasks(number, include="id,data", task_only=True)
    }
    wanted: dict[tuple[str, str], Any] = {}

    with sitting(client.url, voters[0], asked.links[names[0]]) as ada:
        first = answer(ada, client, number, "2", Keys.ENTER)
        second = answer(ada, client, number, "3", "7", "e", Keys.ENTER)
        ada.get(f"{client.url}/projects/{number}/data?task={first}")
        browser.until(ada, lambda: loaded(ada) and ada.execute_script(TICKED) == 2)
        press(ada, "2", "5")
        press(ada, Keys.ENTER)
        browser.until(ada, lambda: "updated successfully" in ada.page_source)
    wanted[face_of[first], names[0]] = ["anger"]
    wanted[face_of[second], names[0]] = ["surprise", "fear"]

    with sitting(client.url, voters[1], asked.links[names[1]]) as ben:
        gone = answer(ben, client, number, "1", Keys.ENTER)
        stays = answer(ben, client, number, "n", Keys.ENTER)
        # Votes come in before one of them is deleted, so that the deletion is an event.
        made.pull()
        ben.get(f"{client.url}/projects/{number}/data?task={gone}")
        browser.until(ben, lambda: loaded(ben) and ben.execute_script(TICKED) >= 1)
        # The page offers to delete every vote: use the menu of the tab with the own name.
        own = f"//*[@data-annotation-id and contains(., '{voters[1].email}')]"
        menu = f"{own}//*[contains(@class, 'annotation-button__trigger')]"
        (opener,) = browser.until(ben, lambda: ben.find_elements(By.XPATH, menu))
        ben.execute_script("arguments[0].click()", opener)
        said = "//*[contains(text(), 'Delete Annotation')]"
        browser.until(ben, lambda: ben.find_elements(By.XPATH, said))[-1].click()
        sure = "//button[contains(., 'Delete') or contains(., 'Proceed') or contains(., 'OK')]"
        browser.until(ben, lambda: ben.find_elements(By.XPATH, sure))[-1].click()
        browser.until(ben, lambda: client.counts(number)[1] == 3)
    wanted[face_of[stays], names[1]] = ["not_a_face"]

    with sitting(client.url, voters[2], asked.links[names[2]]) as cem:
        skipped = answer(cem, client, number, Keys.CONTROL, Keys.SPACE)
        last = answer(cem, client, number, "9", Keys.ENTER)
    wanted[face_of[last], names[2]] = ["unknown"]

    assert all(pulled.complete for pulled in made.pull().values())
    votes = made.ask("SELECT face_id, rater_id, answer.expressions FROM current_votes")
    assert {(face, rater): said for face, rater, said in votes} == wanted
    assert made.ask("SELECT face_id, rater_id FROM standing_annotations WHERE was_cancelled") == [
        (face_of[skipped], names[2])
    ]
    events = "SELECT rater_id, event, count(*) FROM annotations GROUP BY ALL ORDER BY ALL"
    assert sorted(made.ask(events)) == sorted(
        [(names[0], "created", 2), (names[1], "created", 2), (names[1], "deleted", 1),
         (names[2], "created", 2)]
    )  # fmt: skip
    assert made.ask("SELECT count(*) FROM edits_by_others") == [(0,)]
    confident = "SELECT answer.confidence FROM current_votes WHERE len(answer.expressions) = 2"
    assert made.ask(confident) == [("sure",)]


PAGES = {
    "image": (Page(), 2),
    "clip": (Page(clip=True), 2),
    "action-units": (Page(mood=True, units=(1, 4, 12), compounds=True, free_label=True), 2),
}


@pytest.mark.parametrize("name", PAGES)
def test_page__every_kind_stores_the_keys_pressed(
    name: str, studio: Studio, client: LabelStudioClient, voters: list[Account], pictures: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    page, shown = PAGES[name]
    title = f"page {name}"
    made = projects.ensure_project(
        client, title=title, wanted_votes=1, media_dir=studio.home.media, page=page
    )
    tasks = faces(studio.home, 2)
    if page.clip:
        tasks = tasks.with_columns(clip=pl.lit(_clip(studio)))
    push(client, made.id, tasks)
    (link,) = annotator_links(client, made.id, ["annotator"]).values()
    with sitting(client.url, voters[0], link) as chrome:
        assert len(chrome.execute_script(PICTURES)) == shown
        if page.clip:
            ready = "return document.querySelector('video')?.readyState ?? 0"
            browser.until(chrome, lambda: chrome.execute_script(ready) >= 2)
            # The player's clock takes the place of its spinner.
            browser.until(chrome, lambda: "00:00" in chrome.page_source.replace("</span>", ""))
        chrome.save_screenshot(str(pictures / f"studio-{name}.png"))
        if page.units:
            for box in chrome.find_elements(By.CSS_SELECTOR, ".face-unit input[name=C]")[:1]:
                chrome.execute_script("arguments[0].click()", box)
            chrome.execute_script(
                "document.querySelectorAll('.face-unit')[1].scrollIntoView({block: 'center'})"
            )
            chrome.save_screenshot(str(pictures / f"studio-{name}-below.png"))
            press(chrome, "t")
        answer(chrome, client, made.id, "7", Keys.ENTER)
        complaints = [line for line in browser.errors(chrome) if "/heidi-tips" not in line]
    (row,) = [
        row
        for task in client.tasks(made.id, include="id,annotations,result")
        for row in task["annotations"]
    ]
    stored = {part["from_name"]: part["value"]["choices"] for part in row["result"]}
    extra = {"au1": ["C"]} if page.units else {}
    wanted = ["fear", "happiness+surprise"] if page.compounds else ["fear"]
    assert stored == {"validity": ["face"], "expression": wanted, **extra}
    assert complaints == []


def _clip(studio: Studio) -> str:
    """A second of VP9 in which a drawn face moves; its media key."""
    import av

    path = studio.home.media / projects.CLIPS / "drawn.webm"
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for step in range(25):
            frame = np.full((96, 160, 3), (90, 120, 150), np.uint8)
            frame[8:88, 20 + step : 100 + step] = drawn_face(80)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    return f"{projects.CLIPS}/{path.name}"
