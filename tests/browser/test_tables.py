"""What may be done in the tables of models and jobs."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect
from safetensors.numpy import load_file

from tests.running import Service, until

SCRIPT = "<img src=x onerror=\"document.title='taken'\"><script>alert(1)</script>"


def create(site: Service, **settings: Any) -> dict[str, Any]:
    return site.http.post("/models", json={"in_features": 8, "out_features": 4, **settings}).json()


def test_script_in_names_stays_text(page: Page, site: Service) -> None:
    model = create(site, name=SCRIPT, metadata={SCRIPT[:60]: SCRIPT})
    site.http.post(f"/models/{model['id']}/train", headers={"Prefer": "wait=30"})
    page.goto(site.url)
    expect(page.locator("#models tbody .name")).to_have_text(SCRIPT)
    expect(page.locator("#jobs tbody .name")).to_have_text(SCRIPT)
    expect(page.locator("#chart .readout .name")).to_have_text(SCRIPT)
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text(SCRIPT)
    assert page.locator("img[src='x']").count() == 0
    assert page.title() == "lora-service"


def test_models_are_searched_sorted_and_turned_over(page: Page, site: Service) -> None:
    for i in range(30):
        create(site, name=f"model {i}", rank=1 + i % 4)
    page.goto(site.url)
    rows = page.locator("#models tbody tr")
    expect(rows).to_have_count(25)
    expect(rows.first).to_contain_text("model 29")
    page.get_by_role("button", name="Next").click()
    expect(rows).to_have_count(5)
    expect(rows.last).to_contain_text("model 0")
    expect(page.get_by_role("button", name="Back")).to_be_focused()
    page.get_by_role("searchbox").fill("MODEL 1")
    expect(rows).to_have_count(11)
    page.get_by_role("button", name="Rank / alpha").click()
    expect(rows.first).to_contain_text("1 / 1")
    page.get_by_role("button", name="Rank / alpha").click()
    expect(rows.first).to_contain_text("4 / 4")
    expect(page.locator("#models th[aria-sort=descending]")).to_contain_text("Rank")


def test_a_page_that_was_asked_for_is_not_lost_to_one_read_anew(page: Page, site: Service) -> None:
    for _ in range(30):
        create(site)
    page.goto(f"{site.url}/problems/validation")  # where nothing else runs
    shown = page.evaluate("""async () => {
      const { followModels, nextModels, refreshModels } = await import("/static/js/models.js");
      const { get } = await import("/static/js/store.js");
      await followModels();
      await Promise.all([nextModels(), refreshModels()]);
      return get("models").items.length;
    }""")
    assert shown == 5


def test_a_model_in_training_is_deleted_only_with_its_job(page: Page, site: Service) -> None:
    model = create(site, name="busy")
    job = site.http.post(f"/models/{model['id']}/train", json={"epochs": 10_000, "batch_size": 1}).json()
    page.goto(site.url)
    expect(page.locator("#models tbody tr")).to_contain_text("training")
    delete = page.get_by_role("button", name="Delete", exact=True)
    delete.click()
    dialog = page.get_by_role("dialog")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(delete).to_be_focused()
    delete.click()
    dialog.get_by_role("checkbox").check()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator("#models tbody tr")).to_have_count(0)
    expect(page.locator("#jobs tbody tr")).to_have_class("cancelled")
    assert site.http.get(f"/models/{model['id']}").status_code == 404
    assert site.http.get(f"/jobs/{job['id']}").json()["state"] == "cancelled"


def test_a_model_is_trained_again_and_its_files_are_taken(page: Page, site: Service, tmp_path: Any) -> None:
    model = create(site, name="mine")
    page.goto(site.url)
    page.get_by_role("button", name="Train with defaults").click()
    expect(page.locator("#jobs tbody tr")).to_have_class("succeeded")
    page.get_by_role("button", name="Copy the id").click()
    expect(page.get_by_role("status").last).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == model["id"]
    page.get_by_role("button", name="Take its files").click()
    named = "adapter_model.safetensors"
    with (
        page.expect_download(lambda file: file.suggested_filename == "adapter_config.json"),
        page.expect_download(lambda file: file.suggested_filename == named) as tensors,
    ):
        page.get_by_role("dialog").get_by_role("button", name="Download").click()
    tensors.value.save_as(tmp_path / "adapter.safetensors")
    assert {tensor.shape for tensor in load_file(tmp_path / "adapter.safetensors").values()} == {(4, 8), (4, 4)}


def test_what_cannot_be_copied_is_shown_to_be_copied_by_hand(page: Page, site: Service) -> None:
    model = create(site)
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")  # as over plain HTTP
    page.goto(site.url)
    page.get_by_role("button", name="Copy the id").click()
    expect(page.locator(".notice-card .by-hand")).to_have_text(model["id"])


def test_jobs_are_laid_over_one_another_and_taken_as_files(page: Page, site: Service) -> None:
    jobs = []
    for name in ("one", "other"):
        model = create(site, name=name)
        plan = {"epochs": 30, "data": {"kind": "teacher", "noise": 0.2}}
        jobs.append(site.http.post(f"/models/{model['id']}/train", json=plan, headers={"Prefer": "wait=30"}).json())
    page.goto(site.url)
    expect(page.locator("#chart .readout li")).to_have_count(1)
    for box in page.locator("#jobs tbody input").all():
        box.check()
    expect(page.locator("#chart .readout li")).to_have_count(2)
    page.get_by_label("log").check()
    page.get_by_label("smoothing").fill("0.9")
    expect(page.locator("#chart .readout")).to_contain_text("smoothed")
    page.reload()
    expect(page.locator("#chart .readout li")).to_have_count(2)
    expect(page.get_by_label("log")).to_be_checked()
    with page.expect_download() as picture:
        page.locator("#chart").get_by_role("button", name="PNG").click()
    assert picture.value.path().read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as csv:
        page.locator("#chart").get_by_role("button", name="CSV").click()
    lines = csv.value.path().read_text().splitlines()
    assert len(lines) == 31


def test_ranks_are_drawn_for_a_model(page: Page, site: Service) -> None:
    create(site, name="which")
    page.goto(site.url)
    expect(page.locator("#profile")).to_contain_text("which: rank 2")
    page.get_by_label("Data", exact=True).select_option("random")
    page.get_by_role("button", name="Compute").click()
    expect(page.locator("#profile")).to_contain_text("which: rank 4")


def test_a_refusal_is_shown_with_the_id_of_its_request(page: Page, site: Service) -> None:
    page.expected = ("404",)
    model = create(site)
    page.goto(site.url)
    train = page.get_by_role("button", name="Train with defaults")
    expect(train).to_be_visible()
    site.http.delete(f"/models/{model['id']}")
    train.evaluate("(button) => button.click()")  # at once: the row goes when the page next looks
    notice = page.locator(".notice-card.bad")
    expect(notice).to_contain_text(f"there is no model {model['id']}")
    expect(notice).to_contain_text("request ")


@pytest.mark.parametrize("width", [400, 1280, 3840])
def test_nothing_is_wider_than_the_window(page: Page, site: Service, width: int) -> None:
    model = create(site, name="a name that is rather long " * 5)
    job = site.http.post(f"/models/{model['id']}/train", json={"lr": 1e6, "optimizer": "sgd", "epochs": 50}).json()
    until(lambda: site.http.get(f"/jobs/{job['id']}").json()["state"] == "failed")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(site.url)
    expect(page.locator("#jobs tbody tr")).to_have_class("failed")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
