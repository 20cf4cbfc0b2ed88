"""The plain client is what the asynchronous one becomes."""

import inspect

from service.client import AsyncClient, AsyncJob, Client, Job
from tools.twins import SYNC, twins


def test_every_plain_file_is_what_the_asynchronous_one_becomes() -> None:
    written = twins()
    assert {path: path.read_text() for path in SYNC.glob("*.py") if path.stem != "__init__"} == written, (
        "run python -m tools.twins"
    )


def test_the_twins_know_the_same_words() -> None:
    def words(kind: type) -> dict[str, list[str]]:
        own = {name: each for name, each in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
        return {
            "close" if name == "aclose" else name: list(inspect.signature(each).parameters)
            for name, each in own.items()
        }

    assert words(Client) == words(AsyncClient)
    assert words(Job) == words(AsyncJob)
    assert {"train", "forward", "import_peft", "close", "jobs"} <= set(words(Client))
