"""Headless Chromium, for the tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
# CI installs the browser: there a missing one is a failure, not a skip.
MISSING = not (CHROMIUM and DRIVER) and not os.environ.get("CI")
needs_browser = pytest.mark.skipif(
    MISSING, reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)"
)
WIDE = (
    "return [...document.querySelectorAll('*')].filter("
    "e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1"
    ").map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"
)
"""Returns the elements that are wider than the window."""


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """Run a browser without a network."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def resize(browser: webdriver.Chrome, width: int) -> None:
    """Show pages as a device of this width does."""
    device = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
