"""A service that wants a key gets it from whoever reads the page, and nobody else does."""

from playwright.sync_api import BrowserContext, Page, expect

from tests.running import in_thread

KEY = "a-secret-of-the-readers"


def test_the_key_is_asked_for_once_sent_with_all_and_kept_nowhere(page: Page, context: BrowserContext) -> None:
    page.expected = ("401",)
    with in_thread(api_keys=KEY) as site:
        site.wait_for_workers()
        site.http.headers["Authorization"] = f"Bearer {KEY}"
        page.goto(site.url)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_have_count(1)
        dialog.get_by_label("Key").fill("a guess")
        dialog.get_by_role("button", name="Use it").click()
        expect(dialog).to_contain_text("did not take that key")
        dialog.get_by_label("Key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator(".stream")).to_contain_text("live")
        page.get_by_role("button", name="Create and train a first model").click()
        expect(page.locator("#jobs tbody tr")).to_have_class("succeeded")
        expect(page.locator("#header")).to_contain_text("in memory only")
        assert KEY not in str(context.storage_state())
        assert KEY not in page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])")
        assert KEY not in page.content()
        with page.expect_download() as csv:
            page.locator("#chart").get_by_role("button", name="CSV").click()
        assert csv.value.path().read_text().startswith("epoch,loss")
        page.goto("about:blank")


def test_who_gives_no_key_is_not_asked_again_until_they_want_to(page: Page) -> None:
    page.expected = ("401",)
    with in_thread(api_keys=KEY) as site:
        site.wait_for_workers()
        page.goto(site.url)
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.get_by_role("button", name="Enter the key").click()
        page.get_by_label("Key", exact=True).fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator(".stream")).to_have_text("live")
        expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
        page.goto("about:blank")
