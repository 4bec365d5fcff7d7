"""Real headless Chromium for the report's tests: started once, and what a reader does in it.

In: a report's path. Out: a selenium driver on the page. Needs chromium and its driver (Debian: chromium
chromium-driver fonts-noto-cjk); the tests are skipped without them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-prefers-reduced-motion",
)
needs_chromium = [
    pytest.mark.engine,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="needs Chromium and its driver (Debian: chromium chromium-driver fonts-noto-cjk)",
    ),
]


def started() -> Iterator[Any]:
    """A driver whose logs (console, network) can be read; gone again afterwards."""
    pytest.importorskip("selenium", reason="needs selenium")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,1400"):
            options.add_argument(flag)
        driver = Chrome(options=options, service=Service(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


def rows(browser: Any) -> list[Any]:
    """The questions shown."""
    return list(browser.find_elements("css selector", "#questions .q"))


def click(browser: Any, element: Any) -> None:
    """Out of the sticky heading's way first."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def sized(browser: Any, width: int) -> None:
    """The window as wide as a telephone's or a desk's."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
