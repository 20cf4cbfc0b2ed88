"""Adapters learn to read digits from the page, and read what is drawn on it by mouse and by keyboard."""

import math
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from service.cli.demo import MARK
from service.training import digits
from tests.browser.test_access import faults
from tests.running import Service

TRAINED_MS = 90_000
READS = ("willReadFrequently",)  # an advice that is about the reading of these tests alone
Point = tuple[float, float]


def arc(x: float, y: float, wide: float, high: float, begin: float, end: float) -> list[Point]:
    """Points of an ellipse about (x, y), from one angle in degrees to another."""
    angles = [math.radians(begin + (end - begin) * step / 20) for step in range(21)]
    return [(x + wide * math.cos(angle), y + high * math.sin(angle)) for angle in angles]


# As people write them, in a square of side 1.
STROKES: dict[int, list[list[Point]]] = {
    0: [arc(0.5, 0.5, 0.25, 0.37, -90, 270)],
    1: [[(0.36, 0.3), (0.53, 0.14), (0.53, 0.86)]],
    2: [[*arc(0.5, 0.34, 0.22, 0.2, 180, 380), (0.28, 0.85), (0.75, 0.85)]],
    4: [[(0.45, 0.13), (0.24, 0.58), (0.78, 0.58)], [(0.62, 0.35), (0.58, 0.88)]],
    5: [[(0.72, 0.15), (0.36, 0.15), (0.32, 0.45), *arc(0.48, 0.63, 0.24, 0.22, -130, 140)]],
    7: [[(0.26, 0.16), (0.74, 0.16), (0.46, 0.88)], [(0.38, 0.52), (0.7, 0.52)]],
}


def draw(page: Page, strokes: list[list[Point]]) -> None:
    """Draw on the empty pad with the mouse."""
    page.get_by_role("button", name="Clear").click()
    page.locator(".pad").scroll_into_view_if_needed()
    box = page.locator(".pad").bounding_box()
    assert box is not None
    for stroke in strokes:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place)
        page.mouse.up()


def seen(page: Page) -> list[float]:
    """The 64 values of the preview, as the page painted them."""
    script = "(map) => [...map.getContext('2d').getImageData(0, 0, 8, 8).data].filter((_, at) => at % 4 === 3)"
    return [alpha / 255 for alpha in page.locator(".preview").evaluate(script)]


def best(page: Page) -> Locator:
    """The answer of the adapter of rank 8."""
    return page.locator(".reader").last.locator(".answer")


def test_readers_are_trained_and_read_what_is_drawn(page: Page, site: Service) -> None:
    page.expected = READS
    page.goto(site.url)
    page.locator("#welcome").get_by_role("button", name="Train four digit readers").click()
    readers = page.locator(".reader")
    expect(readers.filter(has_text="of the held-out digits right")).to_have_count(4, timeout=TRAINED_MS)
    expect(page.locator("#digits").get_by_role("button", name="Train four digit readers")).to_be_hidden()
    models = site.http.get("/models").json()["items"]
    assert sorted(model["rank"] for model in models) == [1, 2, 4, 8]
    assert len({model["base_id"] for model in models}) == 1
    assert all(model["metadata"] == MARK for model in models)

    right = 0
    for digit, strokes in STROKES.items():
        draw(page, strokes)
        expect(best(page)).not_to_have_text("·")
        page.wait_for_timeout(300)  # in which the last of the live answers comes
        right += best(page).inner_text() == str(digit)
        page.get_by_role("button", name="Clear").click()
        expect(best(page)).to_have_text("·")
    assert right >= len(STROKES) - 1

    page.reload()
    expect(readers).to_have_count(4)
    for digit in (0, 1):  # of the examples, the first ones
        page.get_by_role("button", name="A held-out digit").click()
        expect(best(page)).to_have_text(str(digit))
    shown(page, site, models)
    assert faults(page) == []


def shown(page: Page, site: Service, models: list[dict[str, Any]]) -> None:
    """Check that all four say what the service answers for the values that the page shows."""
    (digit,) = np.flatnonzero([np.abs(row - seen(page)).max() < 0.01 for row in digits.load("test")[0]])[:1]
    x = digits.load("test")[0][digit]
    for place, model in enumerate(sorted(models, key=lambda model: model["rank"])):
        answer = site.http.post(f"/models/{model['id']}/forward", json={"inputs": x.tolist()}).json()
        scores = np.array(answer["outputs"])
        shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        reader = page.locator(".reader").nth(place)
        expect(reader.locator(".answer")).to_have_text(str(scores.argmax()))
        heights = reader.locator(".part").evaluate_all("(parts) => parts.map((part) => parseFloat(part.style.height))")
        assert heights == pytest.approx(100 * shares, abs=0.01)


def test_models_of_the_demo_are_found_and_those_untrained_are_offered_a_training(page: Page, site: Service) -> None:
    for rank in (2, 4):
        body = {"in_features": 64, "out_features": 10, "rank": rank, "name": f"digits, rank {rank}", "metadata": MARK}
        site.http.post("/models", json=body)
    page.goto(site.url)
    expect(page.locator(".reader h3")).to_have_text(["Rank 2", "Rank 4"])
    expect(page.locator("#digits").get_by_role("button", name="Train four digit readers")).to_be_visible()


def test_the_keyboard_draws_cell_by_cell(page: Page, site: Service) -> None:
    page.expected = READS
    site.http.post("/models", json={"in_features": 8, "out_features": 8})
    page.goto(site.url)
    page.get_by_label("A square to draw a digit on").focus()
    for key in (" ", "ArrowUp", "ArrowLeft", " ", "ArrowLeft", " ", " "):
        page.keyboard.press(key)
    expect(page.locator("#digits .drawing").get_by_role("status")).to_have_text("row 4, column 3: empty")
    assert [place for place, value in enumerate(seen(page)) if value] == [3 * 8 + 3, 4 * 8 + 4]
    page.get_by_role("button", name="Clear").click()
    page.wait_for_timeout(100)
    assert not any(seen(page))


def test_a_drawing_becomes_what_the_data_is_like_wherever_and_however_large_it_is(page: Page, site: Service) -> None:
    page.goto(site.url)
    reduced = "(strokes) => import('/static/js/bitmap.js').then((bitmap) => bitmap.reduced(strokes))"
    x, y = digits.load("all")
    for digit, strokes in STROKES.items():
        values = np.array(page.evaluate(reduced, strokes))
        small = page.evaluate(reduced, [[(5 + 0.2 * x, 0.2 * y) for x, y in stroke] for stroke in strokes])
        assert np.abs(values - small).max() <= 2 / 16
        assert values.mean() == pytest.approx(x.mean(), abs=0.03)
        assert set(np.round(values * 16, 9)) <= set(range(17))
        centre = x[y == digit].mean(axis=0)
        assert np.corrcoef(values, centre)[0, 1] > 0.6
    assert page.evaluate(reduced, []) == [0] * 64
    assert any(page.evaluate(reduced, [[(3, 3)]]))


def test_the_examples_are_rows_that_no_adapter_is_trained_on(page: Page, site: Service) -> None:
    page.goto(site.url)
    script = "() => import('/static/js/samples.js').then(({ sample }) => [...Array(10).keys()].map(sample))"
    x, y = digits.load("test")
    for digit, values in enumerate(page.evaluate(script)):
        same = np.flatnonzero((x == np.array(values, dtype=np.float32)).all(axis=1))
        assert y[same].tolist() == [digit]
