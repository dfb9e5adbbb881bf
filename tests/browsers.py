"""A browser before the dashboard, for its tests and its pictures.

The browser is the Chromium of the machine (its package is `chromium` in Debian; CHROMIUM names another one); playwright
drives it, axe-core judges who can use the page. Nothing of either is fetched at run time.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from boards import Clock, looks
from layers import unavailable
from recorded import Recorded

from vectorindex_plugin.dashboard.server import Server

LAYER = "dashboard"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb")
WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 390, "height": 800}
_REMEDY = "Install it (Debian: apt-get install chromium), or name it: CHROMIUM=/path"
LOOK = "document.dispatchEvent(new Event('visibilitychange'))"
"""Script that has the page look at once."""


def chromium() -> str:
    """The browser of this machine."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    return found or unavailable(LAYER, "there is no Chromium", _REMEDY)


@contextmanager
def running() -> Iterator[Any]:
    """A playwright Browser."""
    program = chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable(LAYER, "playwright is not installed", "`make test-dashboard` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page of the dashboard with what it did that it must not: errors, and requests to anybody else."""

    page: Any
    url: str
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def listen(self) -> None:
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda one: one.url.startswith(self.url) or self.elsewhere.append(one.url))

    def go(self, to: str = "") -> None:
        """To an index ("search/products"), or to all of them."""
        self.page.goto(f"{self.url}#/{to}")
        self.page.wait_for_selector("main .view .summary" if to else "main .view .indexes")

    def look(self) -> None:
        """As if three seconds had passed."""
        self.page.evaluate(LOOK)

    def is_quiet(self) -> None:
        assert self.errors == []
        assert self.elsewhere == []


@contextmanager
def served(cluster: Recorded, clock: Clock | None = None) -> Iterator[Server]:
    """The dashboard of all namespaces."""
    with Server(looks(cluster, everywhere=True, clock=clock)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def tabs(browser: Any) -> Iterator[Callable[..., Tab]]:
    """Opens the dashboard before a cluster. `dark`, `narrow`: how the browser is."""
    with ExitStack() as stack:

        def show(cluster: Recorded, *, dark: bool = False, narrow: bool = False, clock: Clock | None = None) -> Tab:
            server = stack.enter_context(served(cluster, clock))
            context = browser.new_context(viewport=NARROW if narrow else WIDE, color_scheme="dark" if dark else "light")
            stack.callback(context.close)
            tab = Tab(context.new_page(), server.url)
            tab.page.set_default_timeout(20_000)
            tab.listen()
            return tab

        yield show
