"""A page of another origin calls the service where its origin is listed, and nowhere else."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.running import in_thread

KEY = "k" * 32
CALLS = """async ([url, key]) => {
  const call = (method, path, headers = {}, body) => fetch(url + path, {
    method,
    headers: { Authorization: `Bearer ${key}`, ...(body && { "Content-Type": "application/json" }), ...headers },
    body: body && JSON.stringify(body),
  });
  const sizes = { in_features: 4, out_features: 2, rank: 1 };
  const made = await call("POST", "/models", { "Idempotency-Key": "one" }, sizes);
  const at = made.headers.get("Location");
  const changed = await call("PATCH", at, { "If-Match": made.headers.get("ETag") }, { name: "from elsewhere" });
  const ran = await call("POST", `${at}/forward`, {}, { inputs: [1, 2, 3, 4] });
  const trained = await call("POST", `${at}/train`, { Prefer: "wait=30" }, { epochs: 2 });
  const job = await trained.json();
  const events = await call("GET", `/jobs/${job.id}/events`, { Accept: "text/event-stream", "Last-Event-ID": "1" });
  const refused = await call("GET", "/models", { Authorization: "Bearer none" });
  const missing = await call("GET", "/models/nothing");
  return {
    made: made.status,
    name: (await changed.json()).name,
    version: ran.headers.get("X-Model-Version"),
    id: ran.headers.get("X-Request-Id") !== null,
    state: job.state,
    done: (await events.text()).includes("event: done"),
    refused: [refused.status, (await refused.json()).type],
    missing: [missing.status, (await missing.json()).type],
    deleted: (await call("DELETE", at)).status,
  };
}"""
CALL = "url => fetch(url + '/limits').then(answer => answer.status, error => error.name)"
CHANGE = "url => fetch(url + '/models', { method: 'POST', body: '{}' }).then(of => of.status, error => error.name)"


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The origin of a site that is not the service."""

    class Blank(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b'<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,">')

        def log_message(self, *said: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()


def test_a_page_of_an_origin_that_is_listed_does_all_that_a_client_does(page: Page, elsewhere: str) -> None:
    page.expected = ("401", "404")
    with in_thread(api_keys=KEY, allowed_origins=elsewhere) as service:
        service.wait_for_workers()
        page.goto(elsewhere)
        assert page.evaluate(CALLS, [service.url, KEY]) == {
            "made": 201,
            "name": "from elsewhere",
            "version": "0",
            "id": True,
            "state": "succeeded",
            "done": True,
            "refused": [401, "/problems/unauthorized"],
            "missing": [404, "/problems/not-found"],
            "deleted": 204,
        }


def test_a_page_of_an_origin_that_is_listed_follows_events(page: Page, elsewhere: str) -> None:
    with in_thread(allowed_origins=elsewhere) as service:
        page.goto(elsewhere)
        opened = (
            "url => new Promise(done => { const of = new EventSource(url); of.onopen = () => done(of.readyState) })"
        )
        assert page.evaluate(opened, f"{service.url}/events") == 1
        page.goto("about:blank")


def test_a_page_of_another_origin_reads_and_changes_nothing(page: Page, elsewhere: str) -> None:
    page.expected = ("CORS policy", "net::ERR_FAILED", "403")
    with in_thread(allowed_origins="https://listed.example") as service:
        page.goto(elsewhere)
        assert page.evaluate(CALL, service.url) == "TypeError"
        assert page.evaluate(CHANGE, service.url) == "TypeError"
        assert service.http.get("/models").json()["items"] == []
