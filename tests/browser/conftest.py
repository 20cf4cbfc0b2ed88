"""A real browser, a service of each test's own, and a page on which nothing may go wrong unseen."""

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from tests.programs import needs
from tests.running import Service, in_thread

WAIT_MS = 30_000

expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="package")  # its event loop must be gone before other tests run theirs
def chromium() -> Iterator[Browser]:
    """The system's browser, started once."""
    needs("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def site() -> Iterator[Service]:
    """A fresh service."""
    with in_thread() as running:
        running.wait_for_workers()
        yield running


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """What one reader has: storage, language, window."""
    context = chromium.new_context(locale="en-US", viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(WAIT_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab; the test fails with what the page complains of, and where it asks another host than its own."""
    page, wrong = context.new_page(), []

    def asked(request: Request) -> None:
        host, own = urlsplit(request.url).hostname, urlsplit(page.url).hostname
        if host not in (None, "127.0.0.1") or own not in (None, "127.0.0.1", ""):
            wrong.append(f"asks {request.url}")

    page.on("request", asked)
    page.on("pageerror", lambda error: wrong.append(f"{error}\n{error.stack}"))
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    yield page
    expected = getattr(page, "expected", ())  # what a test provokes on purpose
    assert [text for text in wrong if not any(part in text for part in expected)] == []
