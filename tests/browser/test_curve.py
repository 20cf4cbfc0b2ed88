"""The mathematics behind the drawn curves, run in the browser that draws them."""

import math
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.running import Service


def called(page: Page, name: str, *arguments: Any) -> Any:
    """What a function of curve.js answers."""
    script = "([name, given]) => import('/static/js/curve.js').then((module) => module[name](...given))"
    return page.evaluate(script, [name, list(arguments)])


@pytest.fixture
def opened(page: Page, service: Service) -> Page:
    page.goto(f"{service.url}/problems/validation")  # where nothing else runs
    return page


def test_smoothing_bends_no_constant_and_no_line_of_two_points(opened: Page) -> None:
    assert called(opened, "smoothed", [1, 2, 3, 4], [0.1] * 4, 0.95) == [0.1] * 4
    assert called(opened, "smoothed", [1, 2], [5, 1], 0.95) == [5, 1]
    assert called(opened, "smoothed", [1, 2, 3], [5, 1, 3], 0) == [5, 1, 3]


def test_smoothing_is_the_debiased_mean_whatever_comes_after(opened: Page) -> None:
    numbers, weight = [math.sin(i) for i in range(50)], 0.8
    smooth = called(opened, "smoothed", list(range(1, 51)), numbers, weight)
    mean = 0.0
    for i, number in enumerate(numbers):
        mean = weight * mean + (1 - weight) * number
        assert smooth[i] == pytest.approx(mean / (1 - weight ** (i + 1)))
    assert called(opened, "smoothed", list(range(1, 11)), numbers[:10], weight) == smooth[:10]


def test_smoothing_leaves_gaps_and_goes_on_after_them(opened: Page) -> None:
    smooth = called(opened, "smoothed", [1, 2, 3, 4], [1, math.nan, 1, 1], 0.5)
    assert math.isnan(smooth[1])
    assert [smooth[i] for i in (0, 2, 3)] == [1, 1, 1]


def test_thinning_keeps_ends_extremes_and_gaps(opened: Page) -> None:
    losses = [math.cos(i / 40) for i in range(10_000)]
    losses[4_321], losses[5_000], losses[6_000] = -9.0, 9.0, math.nan
    curve = {"epochs": list(range(1, 10_001)), "losses": losses, "validation": None, "whole": 10_000}
    thin = called(opened, "thinned", curve, 2_000)
    assert len(thin["epochs"]) <= 2_000
    assert {1, 4_322, 5_001, 6_001, 10_000} <= set(thin["epochs"])
    assert all(
        math.isnan(loss) if epoch == 6_001 else loss == losses[epoch - 1]
        for epoch, loss in zip(thin["epochs"], thin["losses"], strict=True)
    )


def test_the_best_epoch_is_that_of_validation_where_there_is_one(opened: Page) -> None:
    curve = {"epochs": [1, 2, 3], "losses": [3, 2, 1], "validation": [2, 1, 2], "whole": 3}
    assert called(opened, "best", curve) == 1
    assert called(opened, "best", {**curve, "validation": None}) == 2
    assert called(opened, "best", {**curve, "losses": [], "validation": None}) == -1
