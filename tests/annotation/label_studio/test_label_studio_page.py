"""The page an annotator sees: pictures load, keys vote, nothing complains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from annotation.label_studio.users import Account
from tests import browser
from tests.annotation.label_studio.conftest import Board, push
from warehouse.vocabulary import EXPRESSIONS

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.browser, pytest.mark.studio]

PICTURES = "return [...document.querySelectorAll('.lsf-image img')].map(i => i.naturalWidth)"
DRAWINGS = "return [...document.querySelectorAll('table img')].filter(i => i.naturalWidth).length"


def press(chrome: Chrome, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(chrome).send_keys(*keys).perform()


def words(chrome: Chrome) -> str:
    return chrome.execute_script("return document.body.innerText")


def answers(made: Board) -> list[tuple[int, list[dict[str, object]], bool]]:
    """Author, result and skip of each annotation, in the order of their ids."""
    rows = [
        row
        for task in made.client.tasks(
            made.id, include="id,annotations,result,completed_by,was_cancelled"
        )
        for row in task["annotations"]
    ]
    rows.sort(key=lambda row: row["id"])
    return [
        (
            row["completed_by"],
            {part["from_name"]: part["value"]["choices"] for part in row["result"]},
            row["was_cancelled"],
        )
        for row in rows
    ]


def test_page__vote_with_two_keys(
    board: Callable[[int], Board], voters: list[Account], tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    # One face more than is answered: the page complains when there is none left.
    made, ada = board(5), voters[0]
    push(made.client, made.id, made.faces)

    def answered(count: int) -> bool:
        return len(answers(made)) == count and browser.until(chrome, ready)

    def ready() -> bool:
        # The next face is there: loaded pictures and no answer picked yet but the first.
        widths = chrome.execute_script(PICTURES)
        ticked = chrome.execute_script("return document.querySelectorAll('input:checked').length")
        return len(widths) == 2 and min(widths) > 0 and ticked == 1

    with browser.chromium() as chrome:
        browser.sign_in(chrome, made.client.url, ada.email, ada.password)
        chrome.get(f"{made.client.url}/projects/{made.id}/data/?labeling=1")
        browser.until(chrome, lambda: "Labeling Instructions" in words(chrome))
        assert "People disagree about faces" in words(chrome)
        browser.until(chrome, lambda: chrome.execute_script(DRAWINGS) == len(EXPRESSIONS))
        press(chrome, Keys.ESCAPE)
        browser.until(chrome, ready)
        assert chrome.execute_script(PICTURES) == [224, 320]
        for name in EXPRESSIONS:
            assert name.capitalize() in words(chrome)
        assert "cannot tell" in words(chrome)
        # No panel for regions takes the space.
        assert "Labeled regions" not in words(chrome)
        chrome.save_screenshot(str(tmp_path / "task.png"))

        press(chrome, "2", Keys.ENTER)
        browser.until(chrome, lambda: answered(1))
        press(chrome, "3", "7", "e", Keys.ENTER)
        browser.until(chrome, lambda: answered(2))
        press(chrome, "n", Keys.ENTER)
        browser.until(chrome, lambda: answered(3))
        press(chrome, "9", Keys.ENTER)
        browser.until(chrome, lambda: answered(4))
        complaints = [line for line in browser.errors(chrome) if "/heidi-tips" not in line]

    assert answers(made) == [
        (ada.user_id, {"validity": ["face"], "expression": ["happiness"]}, False),
        (
            ada.user_id,
            {"validity": ["face"], "expression": ["surprise", "fear"], "confidence": ["sure"]},
            False,
        ),
        (ada.user_id, {"validity": ["not_a_face"]}, False),
        (ada.user_id, {"validity": ["face"], "expression": ["unknown"]}, False),
    ]
    assert complaints == []
    assert (tmp_path / "task.png").stat().st_size > 20_000


@pytest.mark.slow
def test_page__screenshot_of_the_project(
    board: Callable[[int], Board], voters: list[Account], tmp_path: Path
) -> None:
    made = board(2)
    push(made.client, made.id, made.faces)
    path = tmp_path / "pages" / "project.png"
    complaints = browser.shot(
        f"{made.client.url}/projects/{made.id}/data",
        path,
        login=(voters[0].email, voters[0].password),
        wait_for=".lsf-table",
    )
    assert [line for line in complaints if "/heidi-tips" not in line] == []
    assert path.read_bytes().startswith(b"\x89PNG")
