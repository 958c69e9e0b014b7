"""Headless Chromium for tests of pages; offline except for loopback."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
_PATIENCE_S = 60


def programs() -> tuple[str, str]:
    """Return the paths of Chromium and its driver, or skip the test."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("Chromium and chromedriver are not installed (Debian: chromium-driver)")
    return browser, driver


@contextmanager
def chromium(*, width: int = 1440, height: int = 1000) -> Iterator[Chrome]:
    """A browser with a profile of its own that reaches nothing but 127.0.0.1."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser, driver = programs()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        chrome = webdriver.Chrome(service=Service(driver), options=options)
        try:
            chrome.set_page_load_timeout(_PATIENCE_S)
            yield chrome
        finally:
            chrome.quit()


def sign_in(chrome: Chrome, url: str, email: str, password: str) -> None:
    """Fill in Label Studio's own sign-in page at ``url``."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    chrome.get(f"{url}/user/login/")
    until(chrome, lambda: chrome.find_elements(By.NAME, "password"))
    chrome.find_element(By.NAME, "email").send_keys(email)
    chrome.find_element(By.NAME, "password").send_keys(password, Keys.ENTER)
    until(chrome, lambda: "/user/login" not in chrome.current_url)


def until(chrome: Chrome, condition: Any, *, seconds: float = _PATIENCE_S) -> Any:
    """Wait for ``condition()`` to be true and return what it gave."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    waiter = WebDriverWait(
        chrome,
        seconds,
        poll_frequency=0.1,
        ignored_exceptions=[StaleElementReferenceException, IndexError],
    )
    return waiter.until(lambda _: condition())


def shot(
    url: str,
    path: Path,
    *,
    login: tuple[str, str] | None = None,
    wait_for: str = "body",
    width: int = 1440,
    height: int = 1000,
) -> list[str]:
    """Open ``url``, wait for a CSS selector, save a PNG; return errors.

    The errors are those of the browser's console.

    Args:
        login: e-mail and password of Label Studio at the same address.
    """
    from selenium.webdriver.common.by import By

    with chromium(width=width, height=height) as chrome:
        if login:
            parts = urlsplit(url)
            sign_in(chrome, f"{parts.scheme}://{parts.netloc}", *login)
        chrome.get(url)
        until(chrome, lambda: chrome.find_elements(By.CSS_SELECTOR, wait_for))
        path.parent.mkdir(parents=True, exist_ok=True)
        chrome.save_screenshot(str(path))
        return errors(chrome)


def errors(chrome: Chrome) -> list[str]:
    """What the page complained about on the console since the last call."""
    return [entry["message"] for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]
