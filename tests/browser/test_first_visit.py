"""Whoever opens the page of a fresh service is told what to do, and sees it done."""

from playwright.sync_api import Page, expect

from tests.running import Service, until


def test_an_empty_service_says_what_to_do_and_does_it(page: Page, site: Service) -> None:
    page.goto(site.url)
    expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
    expect(page.locator("#jobs")).to_be_hidden()
    page.get_by_role("button", name="Create and train a first model").click()
    row = page.locator("#jobs tbody tr")
    expect(row).to_have_class("succeeded")
    expect(row).to_contain_text("first model")
    expect(row).to_contain_text("10 / 10")
    expect(page.locator("#chart .readout")).to_contain_text("at epoch 10")
    expect(page.locator("#models tbody tr")).to_contain_text("idle")
    (model,) = site.http.get("/models").json()["items"]
    (job,) = site.http.get("/jobs").json()["items"]
    assert (model["in_features"], model["version"], job["model_id"]) == (64, 1, model["id"])


def test_the_header_says_how_the_service_is(page: Page, site: Service) -> None:
    page.goto(site.url)
    header = page.locator("#header")
    for text in ("ready", "v0.", "in memory only", "up ", "live"):
        expect(header).to_contain_text(text)


def test_figures_follow_what_is_done(page: Page, site: Service) -> None:
    page.goto(site.url)
    until(lambda: page.evaluate("sessionStorage.getItem('lora.samples')"))  # what is done before is nothing new
    model = site.http.post("/models", json={"in_features": 4, "out_features": 4}).json()
    for _ in range(20):
        site.http.post(f"/models/{model['id']}/forward", json={"inputs": [1] * 4})
    site.http.get("/nothing")
    tiles = page.locator(".tile")
    expect(tiles.nth(0)).to_contain_text("p50")
    expect(tiles.nth(0).locator(".value")).not_to_have_text("0")
    expect(tiles.nth(2)).to_contain_text("1 model")
    expect(tiles.nth(3)).to_contain_text("4xx 1")
    assert page.evaluate("JSON.parse(sessionStorage.getItem('lora.samples')).length") >= 2


def test_language_and_theme_are_kept(page: Page, site: Service) -> None:
    page.goto(site.url)
    page.get_by_label("Language").select_option("es")
    expect(page.get_by_role("heading", name="Aquí aún no hay nada")).to_be_visible()
    page.get_by_label("Tema").select_option("dark")
    page.reload()
    expect(page.get_by_role("heading", name="Aquí aún no hay nada")).to_be_visible()
    assert page.evaluate("document.documentElement.lang + document.documentElement.dataset.theme") == "esdark"


def test_the_first_paint_comes_soon(page: Page, site: Service) -> None:
    paints = []
    for _ in range(5):  # the best of them, for the machine may be busy with other things
        page.goto(site.url)
        expect(page.locator("#header")).to_contain_text("ready")
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    sent = page.evaluate("performance.getEntriesByType('resource').reduce((sum, one) => sum + one.decodedBodySize, 0)")
    assert min(paints) < 1_000
    assert sent < 300_000
