"""Nobody is kept out of the page: by axe, by keyboard, and by what is told to screen readers."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.running import Service

GRAVE = {"serious", "critical"}


def fill(site: Service) -> None:
    """Models and jobs in the states that look different."""
    for name, plan in {
        "fine": {"epochs": 20, "validation": 0.2, "data": {"kind": "teacher", "noise": 0.2}},
        "diverged": {"epochs": 20, "lr": 1e6, "optimizer": "sgd"},
    }.items():
        model = site.http.post("/models", json={"in_features": 8, "out_features": 4, "name": name}).json()
        site.http.post(f"/models/{model['id']}/train", json=plan, headers={"Prefer": "wait=30"})
    model = site.http.post("/models", json={"in_features": 8, "out_features": 4}).json()
    site.http.post(f"/models/{model['id']}/train", json={"epochs": 10_000, "batch_size": 1})
    site.http.post(f"/models/{model['id']}/train")
    waiting = site.http.post(f"/models/{model['id']}/train").json()
    site.http.post(f"/jobs/{waiting['id']}/cancel")


def faults(page: Page) -> list[Any]:
    """What axe finds that is serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        (fault["id"], [(node["html"], node["failureSummary"]) for node in fault["nodes"]])
        for fault in found
        if fault["impact"] in GRAVE
    ]


@pytest.mark.parametrize(("theme", "language"), [("dark", "en"), ("light", "es")])
@pytest.mark.parametrize("filled", [False, True], ids=["empty", "full"])
def test_axe_finds_nothing_grave(page: Page, site: Service, filled: bool, theme: str, language: str) -> None:
    if filled:
        fill(site)
    page.add_init_script(f"localStorage['lora.language'] = '{language}'; localStorage['lora.theme'] = '{theme}'")
    page.emulate_media(reduced_motion="reduce")
    page.goto(site.url)
    expect(page.locator("#jobs tbody tr" if filled else "#welcome h2").first).to_be_visible()
    assert faults(page) == []
    if filled:
        page.locator("#models .actions button").last.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert faults(page) == []


def test_axe_finds_nothing_grave_on_a_phone(page: Page, site: Service) -> None:
    fill(site)
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(site.url)
    expect(page.locator("#jobs tbody tr").first).to_be_visible()
    assert faults(page) == []


def test_the_keyboard_reaches_everything_and_the_focus_stays(page: Page, site: Service) -> None:
    model = site.http.post("/models", json={"in_features": 8, "out_features": 4, "name": "by key"}).json()
    site.http.post(f"/models/{model['id']}/train", json={"epochs": 10_000, "batch_size": 4})
    page.goto(site.url)
    expect(page.locator("#jobs tbody tr")).to_have_class("running")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent"))
    assert {"CSV", "PNG", "Cancel the job", "Train with defaults", "Delete", "Compute"} <= reached
    cancel = page.get_by_role("button", name="Cancel the job")
    cancel.focus()
    page.wait_for_timeout(500)  # in which epochs come in
    expect(cancel).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#jobs tbody tr")).to_have_class("cancelled")


def test_the_focus_stays_in_its_row_when_the_one_above_is_gone(page: Page, site: Service) -> None:
    site.http.post("/models", json={"in_features": 8, "out_features": 4})
    newer = site.http.post("/models", json={"in_features": 8, "out_features": 4}).json()
    page.goto(site.url)
    rows = page.locator("#models tbody tr")
    expect(rows).to_have_count(2)
    button = rows.last.get_by_role("button", name="Train with defaults")
    button.focus()
    site.http.delete(f"/models/{newer['id']}")
    expect(rows).to_have_count(1)
    expect(button).to_be_focused()


def test_the_arrow_keys_walk_along_a_curve(page: Page, site: Service) -> None:
    model = site.http.post("/models", json={"in_features": 8, "out_features": 4}).json()
    site.http.post(f"/models/{model['id']}/train", json={"epochs": 9}, headers={"Prefer": "wait=30"})
    page.goto(site.url)
    readout = page.locator("#chart .readout")
    expect(readout).to_contain_text("at epoch 9")
    page.locator("#chart .plot").focus()
    page.keyboard.press("ArrowLeft")
    expect(readout).to_contain_text("at epoch 8")
    page.keyboard.press("ArrowLeft")
    expect(readout).to_contain_text("at epoch 7")
    expect(page.locator("#chart").get_by_role("status").filter(has_text="at epoch 7")).to_have_count(1)
