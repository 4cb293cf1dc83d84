"""Headless Chromium that watches what a page says and fetches; see ``apt-get install chromium``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

EXECUTABLE = shutil.which("chromium")
VIEWPORT = ViewportSize(width=1280, height=800)
READY = "body[data-ready]"


@dataclass
class Watch:
    """What a page did that others could notice.

    :ivar said: messages on the console, errors of scripts, and dialogs.
    :ivar fetched: URLs of requests, their beginnings.
    """

    said: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def over(self, page: Page) -> None:
        """Begin to watch."""
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", self._refuse)
        page.on("request", lambda request: self.fetched.append(request.url[:200]))

    def _refuse(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of our own, gone at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, file: Path, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """A map page that has drawn its first image."""
    context = browser.new_context(**{"viewport": VIEWPORT} | options)
    try:
        page, watch = context.new_page(), Watch()
        watch.over(page)
        page.goto(file.as_uri())
        page.wait_for_selector(READY, timeout=60_000)
        yield page, watch
    finally:
        context.close()


def picture(page: Page, selector: str) -> Any:
    """What is seen of an element, ``(rows, columns, 3)``."""
    return np.asarray(Image.open(BytesIO(page.locator(selector).screenshot())).convert("RGB")).astype(int)
