"""The page at `/` as a browser is sent it: types, tags, and what it may load."""

import re

import httpx
import pytest

from service.api.routes.page import FILES, FOLDER

MOST_BYTES = 300_000
KINDS = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "html": "text/html", "md": "text/plain"}
LINK = re.compile(r'(?:src|href)="(/static/[^"]+)"')
IMPORT = re.compile(r'from "\./([^"]+)"')


def test_the_page_is_html_that_loads_only_what_is_here(http: httpx.Client) -> None:
    page = http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "http://" not in page.text
    assert "https://" not in page.text
    links = LINK.findall(page.text)
    assert len(links) >= 5
    for link in links:
        assert http.get(link).status_code == 200, link


def test_the_page_has_no_script_and_no_style_of_its_own(http: httpx.Client) -> None:
    page = http.get("/").text
    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", page) == []


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_is_guarded_and_of_its_type(http: httpx.Client, name: str) -> None:
    answer = http.get(f"/static/{name}")
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"]
    kinds = {
        "js": "text/javascript",
        "css": "text/css",
        "svg": "image/svg+xml",
        "html": "text/html",
        "md": "text/plain",
    }
    assert answer.headers["content-type"].partition(";")[0] == kinds[name.rpartition(".")[2]]


def test_a_browser_asks_each_time_and_is_told_that_it_has_the_newest(http: httpx.Client) -> None:
    first = http.get("/static/js/main.js")
    assert first.headers["cache-control"] == "no-cache"
    again = http.get("/static/js/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert http.get("/static/js/main.js", headers={"If-None-Match": '"another"'}).status_code == 200


def test_the_icon_is_served_where_browsers_look_for_it(http: httpx.Client) -> None:
    assert http.get("/favicon.ico").content == http.get("/static/favicon.svg").content
    assert http.get("/favicon.ico").headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize(
    "path", ["../page.py", "..%2F..%2Fapp.py", "%2Fetc%2Fpasswd", "js", "js/", "", "nothing.js", "js/%00main.js"]
)
def test_nothing_beside_the_files_can_be_reached(http: httpx.Client, path: str) -> None:
    answer = http.get(f"/static/{path}")
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/not-found"
    assert str(FOLDER) not in answer.text


def test_every_module_is_imported_by_another_and_there() -> None:
    modules = {name.removeprefix("js/"): file.content.decode() for name, file in FILES.items() if name.endswith(".js")}
    imported = {found for text in modules.values() for found in IMPORT.findall(text)}
    assert imported <= set(modules)
    first = {"main.js", "first-paint.js", "vendor/uPlot.iife.min.js"}
    assert set(modules) - imported == first


def test_what_is_shown_is_never_read_as_html() -> None:
    own = [file.content.decode() for name, file in FILES.items() if name.startswith("js/")]
    for text in own:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


def test_both_languages_have_the_same_texts_with_the_same_places() -> None:
    key = re.compile(r'^  "?([\w.-]+)"?: (.+),$', re.MULTILINE)
    english, spanish = (dict(key.findall(FILES[f"js/{name}.js"].content.decode())) for name in ("en", "es"))
    assert list(english) == list(spanish)
    assert len(english) > 100
    for name, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", spanish[name])), name


def test_the_whole_page_weighs_little() -> None:
    assert sum(len(file.content) for file in FILES.values()) < MOST_BYTES
