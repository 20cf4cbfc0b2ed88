"""Much to show keeps nobody waiting: a thousand models, curves of ten thousand epochs, and a flood of events."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.running import Service

FIRST_SECONDS = 2.0
MOST_SECONDS = 0.6


def clock(page: Page) -> Callable[[], float]:
    """Seconds of a processor that the page has taken since it was asked last, however busy the machine is."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = 0.0

    def taken() -> float:
        nonlocal before
        metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        earlier, before = before, metrics["TaskDuration"]
        return before - earlier

    return taken


def test_a_thousand_models_and_long_curves_stay_quick(page: Page, site: Service) -> None:
    base = site.http.post("/models", json={"in_features": 16, "out_features": 8, "name": "model 0"}).json()
    for i in range(1, 1_000):
        site.engine.create(base_id=base["base_id"], rank=2, name=f"model {i}")
    plan = {"epochs": 10_000, "data": {"kind": "teacher", "noise": 0.5}}
    train = f"/models/{base['id']}/train"
    jobs = [site.http.post(train, json={**plan, "seed": i}, headers={"Prefer": "wait=60"}).json() for i in range(3)]
    taken = clock(page)
    page.goto(site.url)
    expect(page.locator("#models tbody tr")).to_have_count(25)
    expect(page.locator("#models .pages")).to_contain_text("1,000 models in all")
    assert taken() < FIRST_SECONDS
    for job in jobs:
        page.locator("#jobs tbody tr", has_text=job["id"][-6:]).get_by_role("checkbox").check()
        expect(page.locator("#chart .readout")).to_contain_text(job["id"][-6:])
        assert taken() < MOST_SECONDS
    expect(page.locator("#chart .fine")).to_contain_text("of 10,000 points (minima and maxima kept)")
    page.get_by_label("smoothing").fill("0.9")
    expect(page.locator("#chart .readout")).to_contain_text("smoothed")
    assert taken() < MOST_SECONDS
    page.get_by_label("log").check()
    page.get_by_role("searchbox").fill("model 99")
    expect(page.locator("#models tbody tr")).to_have_count(11)
    assert taken() < MOST_SECONDS


def test_a_flood_of_events_stalls_nothing(page: Page, site: Service) -> None:
    model = site.http.post("/models", json={"in_features": 8, "out_features": 4}).json()
    page.goto(site.url)
    expect(page.locator(".stream")).to_contain_text("live")
    taken = clock(page)
    taken()
    plan = {"epochs": 10_000, "data": {"kind": "teacher", "noise": 1}}
    job = site.http.post(f"/models/{model['id']}/train", json=plan, headers={"Prefer": "wait=60"}).json()
    expect(page.locator("#jobs tbody tr")).to_have_class("succeeded")
    expect(page.locator("#jobs tbody tr")).to_contain_text("10,000 / 10,000")
    expect(page.locator("#chart .readout")).to_contain_text("at epoch 10,000")
    assert taken() < max(1.0, job["duration_seconds"])  # there is a frame for all that came meanwhile, not one for each
