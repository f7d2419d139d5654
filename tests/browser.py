"""A real browser without a window, for tests of pages; where there is none they are skipped."""

import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def dom(page, folder, fragment=""):
    """What a page is made into, as HTML, once its scripts have run."""
    command = [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}/browser", "--window-size=1200,900", "--dump-dom"]
    address = f"file://{page}{fragment}"
    return subprocess.run([*command, address], capture_output=True, text=True, timeout=120, check=True).stdout


def body(html):
    """The attributes of a page's body: what its script says of itself."""
    return dict(re.findall(r'data-([a-z]+)="([^"]*)"', re.search(r"<body([^>]*)>", html)[1]))
