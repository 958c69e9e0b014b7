"""Dagster's asset graph and a labeling task in a real browser."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import chromium, programs, sign_in, until
from tests.end_to_end.conftest import DemoHome

pytestmark = [pytest.mark.browser, pytest.mark.studio, pytest.mark.timeout(600)]

GROUPS = ("ingest", "rating", "annotation", "audit", "release")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go; ``RISORIUS_SHOTS`` names a folder to keep them."""
    kept = os.environ.get("RISORIUS_SHOTS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def dagster(demo: DemoHome) -> Iterator[str]:
    """The webserver over the demo's instance, on a free port."""
    programs()
    from pipeline.dagster_instance.instance import workspace
    from warehouse.storage.home import Home

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = Home.at(demo.root)
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "dagster_webserver", "-w", str(workspace(home))),
            *("-h", "127.0.0.1", "-p", str(port), "--log-level", "error"),
        ],
        env={**os.environ, "DAGSTER_HOME": str(home.dagster), "RISORIUS_HOME": str(home.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/server_info", server)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.mark.slow
def test_the_asset_graph_shows_every_stage(dagster: str, pictures: Path) -> None:
    from selenium.webdriver.common.by import By

    with chromium(width=1800, height=900) as page:
        page.get(f"{dagster}/asset-groups")
        until(page, lambda: "Global asset lineage" in page.page_source)

        def words() -> list[str]:
            return page.find_element(By.TAG_NAME, "body").text.split()

        # Each group stands in the list on the left and as a node of the graph.
        until(page, lambda: all(words().count(group) >= 2 for group in GROUPS))
        time.sleep(2)
        page.save_screenshot(str(pictures / "dagster-graph.png"))
        page.get(f"{dagster}/locations/risorius/asset-groups/annotation/lineage")
        for asset in ("label_queue", "studio_tasks", "annotations", "soft_labels"):
            until(page, lambda name=asset: name in words())
        until(page, lambda: words().count("Materialized") == 4)
        time.sleep(2)
        page.save_screenshot(str(pictures / "dagster-annotation.png"))


@pytest.mark.slow
def test_the_faces_asset_shows_its_contact_sheet(dagster: str, pictures: Path) -> None:
    from selenium.webdriver.common.by import By

    with chromium(width=1500, height=1400) as page:
        page.get(f"{dagster}/assets/faces?view=overview&partition=demo")
        until(page, lambda: "One row per sampled, aligned face" in page.page_source)
        for text in ("data-engineering", "verdicts", "blurred", "contact_sheet"):
            until(page, lambda said=text: said in page.page_source)
        page.find_element(By.XPATH, "//*[text()='[Show Markdown]']").click()

        def sheet() -> bool:
            images = page.find_elements(By.CSS_SELECTOR, "img[src^='data:image/webp']")
            return any(page.execute_script("return arguments[0].naturalWidth", i) for i in images)

        until(page, sheet)
        time.sleep(1)
        page.save_screenshot(str(pictures / "dagster-faces.png"))


def test_a_labeling_task_shows_the_face_and_no_prediction(demo: DemoHome, pictures: Path) -> None:
    from selenium.webdriver.common.by import By

    login = json.loads((demo.root / "label-studio" / "credentials.json").read_text())
    where = json.loads(demo.run("studio", "up", "--json").stdout)["url"]
    task = demo.sql("select project_id, task_id from current_votes order by task_id limit 1")[0]
    with chromium(width=1500, height=1000) as page:
        sign_in(page, where, login["email"], login["password"])
        page.get(f"{where}/projects/{task['project_id']}/data?task={task['task_id']}")

        def loaded() -> bool:
            images = page.find_elements(By.CSS_SELECTOR, "img")
            return any(
                "local-files" in (image.get_attribute("src") or "")
                or "blob:" in (image.get_attribute("src") or "")
                for image in images
                if page.execute_script("return arguments[0].naturalWidth", image) > 100
            )

        until(page, loaded)
        for expression in ("Happiness", "Contempt"):
            until(page, lambda name=expression: name.lower() in page.page_source.lower())
        page.save_screenshot(str(pictures / "studio-task.png"))


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, f"the webserver ended with {server.returncode}"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"nothing at {url} after two minutes")
