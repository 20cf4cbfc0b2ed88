"""`lora openapi` writes the document that a running service serves."""

import json
from pathlib import Path

from tests.cli.terminal import done, lora
from tests.running import Service


def test_it_is_the_document_of_the_service(service: Service, tmp_path: Path) -> None:
    served = service.http.get("/openapi.json").json()
    assert json.loads(lora("openapi").stdout) == served
    done("openapi", "--output", tmp_path / "openapi.json", url=service.url)
    assert json.loads((tmp_path / "openapi.json").read_text()) == served
