"""A page in headless Chromium, with all its requests and console messages recorded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Watched:
    """An open page, and what it did."""

    page: Any
    requests: list[str] = field(default_factory=list)
    """Addresses that it asked for, apart from itself and what lies within it."""

    complaints: list[str] = field(default_factory=list)
    """Warnings and errors of its console."""

    def texts(self, selector: str) -> list[str]:
        """Return the visible text of each element, spaces folded."""
        return [" ".join(text.split()) for text in self.page.locator(selector).all_inner_texts()]

    def measure(self, expression: str) -> Any:
        """Return what a JavaScript expression comes to in the page."""
        return self.page.evaluate(expression)


@contextmanager
def opened(file, *, width=1180, dark=False, media="screen", vision="none") -> Iterator[Watched]:
    """Open a file in a browser, as one sees it with a deficiency; skips the test where there is no Chromium."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("there is no Chromium here; `apt-get install chromium`")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        watched = Watched(page)
        own = file.as_uri()
        page.on("request", lambda sent: sent.url in {own, "data:,"} or watched.requests.append(sent.url[:200]))
        page.on("console", lambda message: watched.complaints.append(message.text))
        page.on("pageerror", lambda error: watched.complaints.append(str(error)))
        page.emulate_media(media=media)
        page.context.new_cdp_session(page).send("Emulation.setEmulatedVisionDeficiency", {"type": vision})
        page.goto(own)
        try:
            yield watched
        finally:
            browser.close()
