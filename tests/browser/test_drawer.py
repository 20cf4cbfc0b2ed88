"""The drawer creates, trains and runs, says what the service says, and its lines do what its forms do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.test_access import faults
from tests.programs import needs
from tests.running import Service

ROOT = Path(__file__).parents[2]
SECONDS = 60
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")


def opened(page: Page, site: Service) -> Locator:
    """The drawer, opened from the header."""
    page.goto(site.url)
    page.locator("#header").get_by_role("button", name="Try it").click()
    expect(page.locator("#try-create")).to_be_visible()
    return page.locator("#drawer")


def send(step: Locator, name: str) -> Locator:
    """What the service answered to a step's button."""
    step.get_by_role("button", name=name, exact=True).click()
    outcome = step.locator(".outcome")
    expect(outcome).to_contain_text("request ")
    return outcome


def outputs(page: Page) -> list[float]:
    """The row that the drawer shows as the answer to a forward."""
    (row,) = json.loads(page.locator("#try-forward .outcome code").inner_text())["outputs"]
    return list(row)


def near(numbers: list[float]) -> Any:
    """The same up to the rounding of float32, and of what prints it."""
    return pytest.approx(numbers, rel=1e-4, abs=1e-5)


def test_a_model_is_created_trained_and_run(page: Page, site: Service) -> None:
    drawer = opened(page, site)
    expect(drawer.locator("h2")).to_be_focused()
    train, forward = page.locator("#try-train"), page.locator("#try-forward")
    expect(train.get_by_role("button", name="Train", exact=True)).to_be_disabled()
    expect(send(page.locator("#try-create"), "Create")).to_contain_text("201")
    (model,) = site.http.get("/models").json()["items"]
    assert [model[name] for name in ("in_features", "out_features", "rank")] == [64, 10, 4]
    expect(page.locator("#try-model")).to_have_value(model["id"])

    expect(send(train, "Train")).to_contain_text("202")
    expect(train.locator(".outcome")).to_contain_text("10 / 10")
    expect(page.locator("#jobs tbody tr")).to_have_class("succeeded")
    expect(page.locator("#chart .readout")).to_contain_text("at epoch 10")

    answer = send(forward, "Run")
    expect(answer).to_contain_text("200")
    row = [float(number) for number in forward.locator("textarea").input_value().split(",")]
    expected = site.http.post(f"/models/{model['id']}/forward", json={"inputs": [row]}).json()
    assert outputs(page) == near(expected["outputs"][0])


def test_a_job_from_the_drawer_is_drawn_beside_what_was_chosen(page: Page, site: Service) -> None:
    model = site.http.post("/models", json={"in_features": 4, "out_features": 4}).json()
    site.http.post(f"/models/{model['id']}/train", headers={"Prefer": "wait=30"})
    opened(page, site)
    page.locator("#jobs tbody input").check()
    page.locator("#jobs tbody input").uncheck()
    expect(page.locator("#chart .nothing")).to_contain_text("No job is drawn")
    page.locator("#try-model").select_option(model["id"])
    send(page.locator("#try-train"), "Train")
    expect(page.locator("#chart .readout li")).to_have_count(1)


def test_the_count_of_parameters_follows_the_sizes(page: Page, site: Service) -> None:
    opened(page, site)
    step = page.locator("#try-create")
    for sizes in ((64, 10, 4), (4096, 4096, 16)):
        for name, size in zip(("in_features", "out_features", "rank"), sizes, strict=True):
            step.locator(f"[name={name}]").fill(str(size))
        body = dict(zip(("in_features", "out_features", "rank"), sizes, strict=True))
        counts = site.http.post("/models", json=body).json()["parameters"]
        text = (
            f"{counts['trainable']:,} of {counts['total']:,} parameters are trained: {counts['trainable_percent']:g} %"
        )
        expect(step.locator(".parameters")).to_contain_text(text)
    step.locator("[name=rank]").fill("")
    expect(step.locator(".parameters")).to_have_text("–")


def test_a_row_opens_the_drawer_with_its_model_and_gets_the_focus_back(page: Page, site: Service) -> None:
    settings = {"in_features": 12, "out_features": 5, "rank": 2, "alpha": 8.0, "init": "gaussian"}
    model = site.http.post("/models", json={**settings, "name": "of a row"}).json()
    site.http.post("/models", json={"in_features": 3, "out_features": 3})
    page.goto(site.url)
    row = page.locator("#models tbody tr").filter(has_text="of a row")
    button = row.get_by_role("button", name="Open")
    button.click()
    expect(page.locator("#try-model")).to_have_value(model["id"])
    step = page.locator("#try-create")
    for name, value in settings.items():
        expect(step.locator(f"[name={name}]")).to_have_value(f"{value:g}" if isinstance(value, float) else str(value))
    expect(step.locator("form")).to_be_hidden()
    assert len(page.locator("#try-rows").input_value().split(",")) == 12
    assert "202" in send(page.locator("#try-train"), "Train").inner_text()
    assert site.http.get("/jobs").json()["items"][0]["model_id"] == model["id"]
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()
    expect(button).to_be_focused()


def test_a_refusal_stands_at_the_field_that_it_is_about(page: Page, site: Service) -> None:
    page.expected = ("422",)
    opened(page, site)
    step = page.locator("#try-create")
    rank = step.locator("[name=rank]")
    rank.fill("12")
    expect(send(step, "Create")).to_contain_text("422")
    expect(rank).to_be_focused()
    expect(rank).to_have_attribute("aria-invalid", "true")
    field = step.locator(".field").filter(has=page.locator("[name=rank]"))
    expect(field.get_by_role("alert")).to_have_text("rank is 12; it is at most min(in_features, out_features) = 10")
    assert faults(page) == []
    rank.fill("10")
    expect(send(step, "Create")).to_contain_text("201")
    expect(rank).not_to_have_attribute("aria-invalid", "true")

    page.locator("#try-rows").fill("1, 2, three")
    page.locator("#try-forward").get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#try-rows-fault")).to_have_text("“three” is no number")
    page.locator("#try-rows").fill("1, 2, 3")
    expect(send(page.locator("#try-forward"), "Run")).to_contain_text("422")
    expect(page.locator("#try-rows-fault")).to_contain_text("64")


def test_the_bounds_are_those_of_the_service(page: Page, site: Service) -> None:
    opened(page, site)
    schemas = site.http.get("/openapi.json").json()["components"]["schemas"]
    epochs = schemas["TrainRequest"]["properties"]["epochs"]
    field = page.locator("#try-train [name=epochs]")
    expect(field).to_have_attribute("max", str(epochs["maximum"]))
    expect(field).to_have_value(str(epochs["x-default"]))
    optimizers = page.locator("#try-train [name=optimizer] option").all_inner_texts()
    assert optimizers == schemas["Optimizer"]["enum"]
    field.fill("0")
    page.locator("#try-train [name=epochs]").blur()
    assert not field.evaluate("(field) => field.validity.valid")


def filled(page: Page, site: Service) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model made by the drawer's own button, and the three steps filled with what is not the default."""
    opened(page, site)
    create, train = page.locator("#try-create"), page.locator("#try-train")
    for summary in page.locator(".step .more summary").all():
        summary.click()
    for name, value in {"name": 'it\'s "quoted" $HOME', "alpha": "2.5", "seed": "7"}.items():
        create.locator(f"[name={name}]").fill(value)
    create.locator("[name=init]").select_option("normal")
    send(create, "Create")
    train.locator("[name=data]").select_option("digits")
    expect(train.locator("[name=loss]")).to_have_value("cross_entropy")
    assert '"loss":"cross_entropy"' in line(page, "train", "curl")
    for name, value in {"epochs": "3", "lr": "0.02", "batch_size": "64", "seed": "5"}.items():
        train.locator(f"[name={name}]").fill(value)
    train.locator("[name=optimizer]").select_option("adamw")
    send(train, "Train")
    expect(page.locator("#jobs tbody tr")).to_have_class("succeeded")
    send(page.locator("#try-forward"), "Run")
    return site.http.get("/models").json()["items"][0], site.http.get("/jobs").json()["items"][0]


def line(page: Page, step: str, kind: str) -> str:
    """The text that a step shows for one of the ways to call."""
    found = page.locator(f"#try-{step} .line-{kind}").text_content()
    assert found
    return found


def alike(made: dict[str, Any], by_page: dict[str, Any]) -> None:
    """Check that a model was made with the settings of another."""
    for name in ("name", "in_features", "out_features", "rank", "alpha", "init", "seed", "base_id"):
        assert made[name] == by_page[name], name


def newest(site: Service, kind: str) -> Any:
    return site.http.get(f"/{kind}?order=desc&limit=1").json()["items"][0]


def ran(command: list[str] | str, **environment: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lines_of_curl_and_python_do_what_the_forms_do(page: Page, site: Service) -> None:
    needs("curl")
    model, job = filled(page, site)
    alike(json.loads(ran(line(page, "create", "curl"))), model)
    ran([sys.executable, "-c", line(page, "create", "python")])
    alike(newest(site, "models"), model)
    assert json.loads(ran(line(page, "forward", "curl")))["outputs"][0] == near(outputs(page))
    printed = ran([sys.executable, "-c", line(page, "forward", "python")])
    assert [float(number) for number in NUMBER.findall(printed)] == near(outputs(page))
    again = json.loads(ran(line(page, "train", "curl")))
    assert (again["model_id"], again["plan"]) == (model["id"], job["plan"])
    ran([sys.executable, "-c", line(page, "train", "python")])
    last = newest(site, "jobs")
    assert last["id"] != again["id"]
    assert (last["model_id"], last["plan"]) == (model["id"], job["plan"])


def test_the_lines_for_the_command_do_what_the_forms_do(page: Page, site: Service) -> None:
    model, job = filled(page, site)
    lora = f"{sys.executable} -m service "
    ran(line(page, "create", "cli").replace("lora ", lora, 1))
    alike(newest(site, "models"), model)
    piped = line(page, "forward", "cli").replace("| lora ", f"| {lora}", 1)
    numbers = [float(number) for number in ran(piped).split()]
    assert numbers == near(outputs(page))
    ran(line(page, "train", "cli").replace("lora ", lora, 1))
    again = newest(site, "jobs")
    assert (again["model_id"], again["plan"], again["state"]) == (model["id"], job["plan"], "succeeded")


def test_the_tabs_are_walked_by_keys_copied_and_kept(page: Page, site: Service) -> None:
    opened(page, site)
    step = page.locator("#try-create")
    step.get_by_role("tab", name="curl").focus()
    page.keyboard.press("ArrowRight")
    expect(step.get_by_role("tab", name="Python")).to_be_focused()
    expect(step.get_by_role("tabpanel")).to_contain_text("client.create(in_features=64")
    expect(page.locator("#try-train").get_by_role("tab", name="Python")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("End")
    expect(step.get_by_role("tabpanel")).to_contain_text("lora create --in 64 --out 10 --rank 4")
    step.get_by_role("tabpanel").get_by_role("button", name="Copy these lines").click()
    assert page.evaluate("navigator.clipboard.readText()") == line(page, "create", "cli")
    page.reload()
    opened(page, site)
    expect(step.get_by_role("tab", name="lora")).to_have_attribute("aria-selected", "true")


@pytest.mark.parametrize(("width", "theme", "language"), [(1280, "dark", "en"), (400, "light", "es")])
def test_axe_finds_nothing_grave_in_the_drawer(
    page: Page, site: Service, width: int, theme: str, language: str
) -> None:
    page.add_init_script(f"localStorage['lora.language'] = '{language}'; localStorage['lora.theme'] = '{theme}'")
    page.emulate_media(reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(site.url)
    page.locator("#header .choices button").first.click()
    page.locator("#try-create form").get_by_role("button").last.click()
    expect(page.locator("#try-create .outcome pre")).to_be_visible()
    for summary in page.locator(".step .more summary").all():
        summary.click()
    assert faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_on_a_phone_what_is_said_is_said_above_the_drawer(page: Page, site: Service) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    opened(page, site)
    page.locator("#try-create").get_by_role("button", name="Copy these lines").click()
    expect(page.get_by_role("dialog").get_by_text("Copied")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Close").first.click()
    expect(page.locator("#header").get_by_role("button", name="Try it")).to_be_focused()


def test_a_second_adapter_goes_on_the_base_of_the_first(page: Page, site: Service) -> None:
    opened(page, site)
    step = page.locator("#try-create")
    send(step, "Create")
    step.locator(".more summary").click()
    step.locator("[name=base_id]").select_option(index=1)
    expect(step.locator("[name=in_features]")).to_be_disabled()
    step.locator("[name=rank]").fill("2")
    step.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator("#models tbody tr")).to_have_count(2)
    first, second = site.http.get("/models").json()["items"]
    assert first["base_id"] == second["base_id"]
    assert {first["rank"], second["rank"]} == {2, 4}
