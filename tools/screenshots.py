"""Take the pictures of the page for the documentation, of a service of its own: `python -m tools.screenshots`."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, expect, sync_playwright

from service.cli.started import service

FOLDER = Path(__file__).parents[1] / "docs" / "pages" / "images"
WAIT_MS = 120_000
LONG = {"epochs": 10_000, "batch_size": 16, "validation": 0.2, "data": {"kind": "teacher", "noise": 0.3}, "lr": 0.001}
CHAIN = [
    {"in_features": 64, "out_features": 32, "rank": 8, "activation": "relu"},
    {"in_features": 32, "out_features": 10, "rank": 4},
]
# A three, in a square of side 1.
THREE = [(0.3, 0.24), (0.4, 0.14), (0.55, 0.13), (0.67, 0.2), (0.69, 0.32), (0.62, 0.43), (0.46, 0.49)]
THREE += [(0.63, 0.54), (0.71, 0.66), (0.67, 0.79), (0.55, 0.87), (0.4, 0.86), (0.28, 0.76)]


@dataclass(frozen=True)
class Shot:
    """One picture: its window, how the reader has the page, what is done before, and which part is taken."""

    name: str
    prepare: Callable[[Page], None] = lambda page: None
    part: str | None = None
    width: int = 1280
    height: int = 860
    theme: str = "light"
    language: str = "en"


def teach(page: Page) -> None:
    """Have the digit readers trained, where they are not yet."""
    button = page.locator("button.teach:visible")
    page.wait_for_timeout(1_000)
    if button.count():
        button.first.click()
    expect(page.locator(".reader .fine").filter(has_text="%")).to_have_count(4, timeout=WAIT_MS)


def draw(page: Page) -> None:
    """Draw a three."""
    teach(page)
    page.locator(".pad").scroll_into_view_if_needed()
    box = page.locator(".pad").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in THREE]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place)
    page.mouse.up()
    expect(page.locator(".answer").last).to_have_text("3")


def live(page: Page) -> None:
    """Wait until a curve has grown for a while."""
    expect(page.locator("#jobs tr.running")).to_have_count(1)
    page.wait_for_timeout(4_000)


def try_it(page: Page) -> None:
    """Open the drawer, create and train."""
    page.locator("#header .choices .primary").click()
    page.locator("#try-create button.primary").click()
    expect(page.locator("#try-create .outcome pre")).to_be_visible()
    page.locator("#try-create summary").first.click()
    page.locator("#try-train [name=data]").select_option("teacher")
    page.locator("#try-train [name=epochs]").fill("200")
    page.locator("#try-train").get_by_role("tab").nth(1).click()
    page.locator("#try-train button.primary").click()
    page.wait_for_timeout(2_000)


def look(page: Page) -> None:
    """Look at what the reader of rank 8 changes, beside that of rank 4."""
    models = page.locator("#pictures select").first
    text = next(text for text in models.locator("option").all_inner_texts() if "rank 8" in text)
    models.select_option(label=text)
    page.locator("#pictures select").last.select_option(index=1)
    expect(page.locator("#pictures .of-overlap")).to_be_visible()


EMPTY = Shot("empty", height=640)
SHOTS = [
    Shot("digits", draw, "#digits"),
    Shot("pictures", look, "#pictures"),
    Shot("drawer", try_it),
    Shot("phone", draw, "#digits", width=400, height=1_000),
    Shot("spanish", look, "#pictures", theme="dark", language="es"),
    Shot("live", live),
    Shot("dark", live, theme="dark"),
]


def take(browser: Browser, url: str, shot: Shot) -> None:
    """Open the page as a shot has it, and write its picture."""
    page = browser.new_page(viewport={"width": shot.width, "height": shot.height}, reduced_motion="reduce")
    kept = {"lora.theme": shot.theme, "lora.language": shot.language}
    page.add_init_script("".join(f"localStorage['{name}'] = '{value}';" for name, value in kept.items()))
    page.goto(url)
    expect(page.locator(".stream.live")).to_be_visible()
    page.wait_for_timeout(1_500)
    shot.prepare(page)
    page.wait_for_timeout(500)
    taken: Any = page if shot.part is None else page.locator(shot.part)
    taken.screenshot(path=FOLDER / f"{shot.name}.png")
    page.close()


def fill(url: str) -> None:
    """Models and jobs beside the digit readers: one that runs, one that waits, one that failed."""
    with httpx.Client(base_url=url, timeout=90) as http:

        def train(plan: dict[str, Any], headers: dict[str, str] | None = None, **settings: Any) -> None:
            model = http.post("/models", json={"in_features": 64, "out_features": 10, **settings}).json()
            http.post(f"/models/{model['id']}/train", json=plan, headers=headers or {}).raise_for_status()

        wait = {"Prefer": "wait=60"}
        train({"lr": 1e6, "optimizer": "sgd", "epochs": 100}, wait, name="too fast")
        model = http.post("/models", json={"layers": CHAIN, "name": "two layers"}).json()
        plan = {"epochs": 20, "batch_size": 64, "loss": "cross_entropy", "data": {"kind": "digits"}, "validation": 0.2}
        http.post(f"/models/{model['id']}/train", json=plan, headers=wait)
        train(LONG, name="tenant A", rank=2)
        train({"epochs": 50}, name="tenant B", rank=8)


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with service(keep=False) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        take(browser, url, EMPTY)
        for shot in SHOTS:
            if shot.prepare is live and shot.theme == "light":
                fill(url)
            take(browser, url, shot)
        browser.close()


if __name__ == "__main__":
    main()
