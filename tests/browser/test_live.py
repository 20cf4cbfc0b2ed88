"""What happens to jobs is on the page as it happens, and stays there."""

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.running import Service, until

LONG = {"epochs": 10_000, "batch_size": 8, "validation": 0.2, "data": {"kind": "teacher", "noise": 0.3}}
EPOCH = "document.querySelector('#chart .readout .number')?.textContent.match(/at epoch ([\\d,]+)/)?.[1] ?? '0'"


def started(site: Service, plan: dict[str, Any] = LONG, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model and a job that trains it."""
    model = site.http.post("/models", json={"in_features": 16, "out_features": 4, **settings}).json()
    return model, site.http.post(f"/models/{model['id']}/train", json=plan).json()


def epoch(page: Page) -> int:
    """The epoch up to which the chart has been drawn."""
    return int(page.evaluate(EPOCH).replace(",", ""))


def grown(page: Page, beyond: int) -> None:
    """Wait until the chart has been drawn beyond an epoch."""
    until(lambda: page.wait_for_timeout(50) or epoch(page) > beyond)


def test_a_curve_grows_by_itself_and_outlives_a_reload(page: Page, site: Service) -> None:
    page.goto(site.url)
    started(site, name="grows")
    grown(page, 20)
    before = epoch(page)
    grown(page, before + 5)
    page.reload()
    grown(page, before + 5)
    row = page.locator("#jobs tbody tr")
    expect(row).to_contain_text("running")
    expect(row).to_contain_text(re.compile(r"~ \d"))
    expect(page.locator("#models tbody tr")).to_contain_text("training")


def test_a_job_is_cancelled_by_its_button(page: Page, site: Service) -> None:
    _, job = started(site)
    page.goto(site.url)
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator("#jobs tbody tr")).to_have_class("cancelled")
    assert site.http.get(f"/jobs/{job['id']}").json()["state"] == "cancelled"


def test_a_frame_that_was_drawn_stays_while_the_curve_grows(page: Page, site: Service) -> None:
    page.goto(site.url)
    started(site)
    grown(page, 30)
    plot = page.locator("#chart .u-over").bounding_box()
    assert plot
    page.mouse.move(plot["x"] + 20, plot["y"] + 50)
    page.mouse.down()
    page.mouse.move(plot["x"] + plot["width"] / 4, plot["y"] + 60, steps=4)
    page.mouse.up()
    scale = "(({min, max}) => [min, max])(document.querySelector('#chart .plot').chart.scales.x)"
    framed, at = page.evaluate(scale), epoch(page)
    whole = page.get_by_role("button", name="Whole curve")
    expect(whole).to_be_visible()
    page.mouse.move(0, 0)
    grown(page, at + 10)
    assert page.evaluate(scale) == framed
    page.mouse.dblclick(plot["x"] + 40, plot["y"] + 40)
    assert page.evaluate(scale)[1] > framed[1]
    expect(whole).to_be_hidden()


def test_a_job_that_diverged_is_red_and_says_why(page: Page, site: Service) -> None:
    _, job = started(site, {"epochs": 50, "lr": 1e6, "optimizer": "sgd"})
    until(lambda: site.http.get(f"/jobs/{job['id']}").json()["state"] == "failed")
    page.goto(site.url)
    row = page.locator("#jobs tbody tr")
    expect(row).to_have_class("failed")
    expect(row).to_contain_text("diverged: a loss or a weight is no longer finite")
    page.locator("#chart summary").click()
    ended = site.http.get(f"/jobs/{job['id']}").json()["epoch"]
    expect(page.locator("#chart details")).to_contain_text(f"not finite at epoch {ended + 1}")
    assert page.evaluate("document.querySelector('#chart .plot').chart.scales.x.max") == ended + 1
    page.get_by_role("button", name="Copy curl to retry").click()
    line = page.evaluate("navigator.clipboard.readText()")
    assert line.startswith(f"curl -sX POST '{site.url}/models/{job['model_id']}/train'")


def test_every_plan_can_be_asked_for_again(page: Page, site: Service) -> None:
    page.goto(site.url)
    model = site.http.post("/models", json={"in_features": 64, "out_features": 10}).json()
    plans = [
        {},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adamw", "schedule": "cosine", "warmup_epochs": 1, "max_grad_norm": 1.0},
        {"optimizer": "closed_form", "epochs": 1, "data": {"kind": "teacher"}},
        {"loss": "cross_entropy", "batch_size": 64, "epochs": 2, "data": {"kind": "digits"}, "validation": 0.2},
        {"validation": {"kind": "random"}, "early_stopping": {"patience": 3}},
    ]
    for plan in plans:
        first = site.http.post(f"/models/{model['id']}/train", json=plan, headers={"Prefer": "wait=30"}).json()
        body = page.evaluate(
            "(plan) => import('/static/js/curl.js').then((module) => module.requestOf(plan))", first["plan"]
        )
        again = site.http.post(f"/models/{model['id']}/train", json=body, headers={"Prefer": "wait=30"})
        assert again.status_code in (200, 202), again.text
        assert again.json()["plan"] == first["plan"]


def test_an_answer_that_comes_late_takes_nothing_back(page: Page, site: Service) -> None:
    page.goto(f"{site.url}/problems/validation")  # where nothing else runs
    _, job = started(site)
    script = """async ([record, told]) => {
      const { inOrder, learn } = await import("/static/js/jobs.js");
      for (const one of told) learn({ ...record, ...one });
      return inOrder().map(({ state, epoch }) => [state, epoch]);
    }"""
    for told, shown in {
        (("queued", 0), ("running", 5), ("running", 3)): ["running", 5],
        (("running", 5), ("cancelled", 5), ("running", 4)): ["cancelled", 5],
        (("running", 5), ("queued", 4)): ["queued", 4],  # by a service that has started anew
    }.items():
        page.reload()
        assert page.evaluate(script, [job, [{"state": state, "epoch": epoch} for state, epoch in told]]) == [shown]


def test_the_stream_comes_back_and_misses_nothing(page: Page, site: Service) -> None:
    page.expected = ("ERR_INTERNET_DISCONNECTED", "Failed to load resource")
    page.goto(site.url)
    expect(page.locator(".stream")).to_contain_text("live")
    page.context.set_offline(True)
    expect(page.locator(".stream")).to_contain_text("not live")
    _, job = started(site, {"epochs": 5})
    until(lambda: site.http.get(f"/jobs/{job['id']}").json()["state"] == "succeeded")
    page.context.set_offline(False)
    expect(page.locator("#jobs tbody tr")).to_have_class("succeeded")
    expect(page.locator(".stream")).to_have_text("live")


def test_a_service_that_leaves_says_so(page: Page, site: Service) -> None:
    page.expected = ("ERR_CONNECTION_REFUSED", "503", "Failed to load resource")
    page.goto(site.url)
    expect(page.locator(".stream")).to_contain_text("live")
    site.engine.drain()
    expect(page.locator(".banner")).to_contain_text("shutting down")
    expect(page.locator("#header .health")).to_contain_text("shutting down")
