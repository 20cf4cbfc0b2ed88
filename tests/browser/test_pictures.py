"""The pictures of a model show what `GET /models/{id}/analysis` says."""

from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.test_access import faults
from tests.running import Service

PLAN = {"epochs": 20, "data": {"kind": "teacher", "seed": 1}, "seed": 1}


def trained(site: Service, **settings: Any) -> dict[str, Any]:
    """A model that has learnt something."""
    model = site.http.post("/models", json={"seed": 0, **settings}).json()
    site.http.post(f"/models/{model['id']}/train", json=PLAN, headers={"Prefer": "wait=30"})
    return dict(site.http.get(f"/models/{model['id']}").json())


def analysis(site: Service, model: dict[str, Any], query: str = "") -> dict[str, Any]:
    return dict(site.http.get(f"/models/{model['id']}/analysis{query}").json())


def figure(number: float, digits: int) -> str:
    """A number of middling size as the page writes it in English."""
    return f"{float(f'{number:.{digits}g}'):,.10f}".rstrip("0").rstrip(".")


def test_the_pictures_have_what_the_service_says(page: Page, site: Service) -> None:
    model = trained(site, in_features=96, out_features=12, rank=3, name="looked at")
    found = analysis(site, model)
    page.goto(site.url)
    panel = page.locator("#pictures")
    spectrum = panel.get_by_role("img", name="Singular values of ΔW")
    for place, (value, energy) in enumerate(zip(found["singular_values"], found["energy"], strict=True), 1):
        told = f"σ{place} = {figure(value, 4)}, up to here {figure(100 * energy, 3)} %"
        assert told in (spectrum.get_attribute("aria-label") or "")
    heights = spectrum.locator(".bar-of").evaluate_all(
        "(bars) => bars.map((bar) => Number(bar.getAttribute('height')))"
    )
    assert [height / heights[0] for height in heights] == pytest.approx(
        [value / found["singular_values"][0] for value in found["singular_values"]]
    )
    expect(panel).to_contain_text(f"{figure(found['effective_rank'], 3)} of 3 (effective rank)")
    expect(panel).to_contain_text(f"The change is {figure(100 * found['relative_norm'], 3)} % of the frozen weight")
    expect(panel).to_contain_text("At rank 3 the adapter trains 324 numbers where the whole weight has 1,152: 28.1 %")
    assert faults(page) == []

    delta = panel.get_by_role("application", name="ΔW, 12 by 96")
    values = found["heatmaps"]["delta"]["values"]
    box = delta.bounding_box()
    assert box is not None
    delta.hover(position={"x": box["width"] * 2.5 / 64, "y": box["height"] * 3.5 / 12})
    readout = panel.locator(".map").nth(2).get_by_role("status")
    expect(readout).to_have_text(f"row 4, column 4: {figure(values[3][2], 3)}")
    delta.focus()
    page.keyboard.press("ArrowDown")
    expect(readout).to_contain_text("row 5, column 4")
    largest = max(abs(value) for row in values for value in row)
    expect(panel.locator(".of-scale").nth(2)).to_contain_text(figure(largest, 3))


def test_colours_tell_the_sign_and_the_size(page: Page, site: Service) -> None:
    model = trained(site, in_features=8, out_features=4, rank=2)
    values = analysis(site, model)["heatmaps"]["B"]["values"]
    page.goto(site.url)
    canvas = page.locator("#pictures .heat").nth(1)
    expect(canvas).to_be_visible()
    pixels = canvas.evaluate("(map) => [...map.getContext('2d').getImageData(0, 0, map.width, map.height).data]")
    redness = [pixels[4 * at] - pixels[4 * at + 2] for at in range(len(pixels) // 4)]
    flat = [value for row in values for value in row]
    order = sorted(range(len(flat)), key=flat.__getitem__)
    assert [redness[at] for at in order] == sorted(redness)
    assert redness[order[0]] < 0 < redness[order[-1]]


def test_a_model_that_has_learnt_nothing_is_told_of_and_followed(page: Page, site: Service) -> None:
    model = site.http.post("/models", json={"in_features": 8, "out_features": 4, "rank": 2}).json()
    page.goto(site.url)
    panel = page.locator("#pictures")
    expect(panel).to_contain_text("The adapter changes nothing yet")
    expect(panel.locator(".of-scale").nth(1).locator("span")).to_have_text(["0", "0"])
    site.http.post(f"/models/{model['id']}/train", json=PLAN)
    expect(panel).to_contain_text("(effective rank)")
    site.http.delete(f"/models/{model['id']}?force=true")
    page.reload()
    expect(panel).to_be_visible()
    expect(panel).to_contain_text("Choose a model")


def test_the_model_under_study_stays_when_the_page_is_turned_and_goes_when_it_is_deleted(
    page: Page, site: Service
) -> None:
    other = site.http.post("/models", json={"in_features": 8, "out_features": 4, "rank": 2}).json()
    for _ in range(25):
        site.engine.create(base_id=other["base_id"], rank=1)
    model = site.http.post("/models", json={"in_features": 8, "out_features": 6, "rank": 2}).json()
    page.goto(site.url)
    delta = page.locator("#pictures").get_by_role("application", name="ΔW, 6 by 8")
    expect(delta).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#models tbody tr")).to_have_count(2)
    for panel in ("#pictures", "#profile"):
        expect(page.locator(panel).get_by_label("Model")).to_have_value(model["id"])
    expect(delta).to_be_visible()
    site.http.delete(f"/models/{model['id']}")
    expect(delta).to_be_hidden()
    expect(page.locator("#pictures").get_by_role("application", name="ΔW, 4 by 8")).to_be_visible()


def test_of_models_chosen_one_after_the_other_the_last_is_shown(page: Page, site: Service) -> None:
    slow, quick, _ = (
        site.http.post("/models", json={"in_features": 8, "out_features": size, "rank": 2}).json() for size in (4, 5, 6)
    )
    held: list[Route] = []
    page.route(f"**/models/{slow['id']}/analysis*", lambda route: held.append(route))
    page.goto(site.url)
    panel = page.locator("#pictures")
    expect(panel.get_by_role("application", name="ΔW, 6 by 8")).to_be_visible()
    panel.get_by_label("Model").select_option(slow["id"])
    panel.get_by_label("Model").select_option(quick["id"])
    expect(panel.get_by_role("application", name="ΔW, 5 by 8")).to_be_visible()
    with page.expect_response(f"**/models/{slow['id']}/analysis*"):
        held[0].continue_()
    expect(panel.get_by_role("application", name="ΔW, 5 by 8")).to_be_visible()


def test_layers_are_switched_and_models_compared(page: Page, site: Service) -> None:
    layers = [
        {"in_features": 8, "out_features": 6, "rank": 2, "activation": "relu"},
        {"in_features": 6, "out_features": 4},
    ]
    chain = trained(site, layers=layers, name="two layers")
    one = trained(site, in_features=8, out_features=4, rank=2, name="one")
    other = site.http.post(
        "/models", json={"base_id": one["base_id"], "rank": 3, "init": "normal", "name": "other"}
    ).json()
    page.goto(site.url)
    panel = page.locator("#pictures")
    panel.get_by_label("Model").select_option(chain["id"])
    expect(panel.get_by_role("application", name="ΔW, 6 by 8")).to_be_visible()
    expect(panel.get_by_label("Compare with")).to_be_hidden()
    panel.get_by_label("Layer").select_option("1")
    expect(panel.get_by_role("application", name="ΔW, 4 by 6")).to_be_visible()
    panel.get_by_label("Model").select_option(one["id"])
    expect(panel.get_by_label("Layer")).to_be_hidden()
    panel.get_by_label("Compare with").select_option(other["id"])
    overlap = analysis(site, one, f"?with={other['id']}")["overlap"]
    expect(panel.locator(".of-overlap")).to_contain_text("Beside other")
    for part in ("cosine", "input", "output"):
        expect(panel.locator(".of-overlap")).to_contain_text(figure(overlap[part], 4))
