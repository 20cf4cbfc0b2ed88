"""The first ten minutes of a new user: `python -m tests.story.journey` spends them in a clone, set up from nothing.

The tests spend them in a copy of the tree, with the environment that they run in.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from playwright.sync_api import Expect, Page, sync_playwright
from rich.progress import track
from safetensors.torch import load_file

from service.cli.serve import READY
from tests.browser.test_digits import STROKES, draw
from tests.running import free_port, until

ROOT = Path(__file__).parents[2]
SETUP_SECONDS = 500
WAIT_MS = 90_000

expect = Expect()  # of its own, more patient than that of other tests
expect.set_options(timeout=WAIT_MS)


@dataclass
class Walk:
    """A user with a clone, a browser and a terminal.

    Attributes:
        folder: the clone, in which all is typed.
        python: the interpreter of its environment.
        make: what `make` is started with.
    """

    folder: Path
    page: Page
    python: Path
    make: tuple[str, ...] = ("make",)
    port: int = 0
    server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def types(self, *command: str, **environment: str) -> str:
        """What a command prints, which must succeed."""
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder), "LORA_URL": self.url, **environment},
            capture_output=True,
            text=True,
            timeout=SETUP_SECONDS,
        )
        assert ended.returncode == 0, (command, ended.stderr)
        return ended.stdout

    def lora(self, *words: str) -> str:
        """What the command prints."""
        return self.types(str(self.python), "-m", "service", *words)


def demo(walk: Walk) -> None:
    """`make demo`, the first of the two commands of the README."""
    printed = walk.types(*walk.make, "demo")
    assert "Total parameters: 946" in printed
    assert "held-out accuracy" in printed


def serve(walk: Walk) -> None:
    """Start the service on a file of its own, and wait until it is there."""
    walk.port = walk.port or free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LORA_")}
    environment |= {"LORA_DATABASE_URL": f"sqlite:///{walk.folder}/lora.db", "PYTHONPATH": str(walk.folder)}
    command = [str(walk.python), "-m", "service", "serve", "--port", str(walk.port)]
    said = walk.folder / "serve.txt"
    with said.open("w") as stdout:
        walk.server = subprocess.Popen(command, cwd=walk.folder, env=environment, stdout=stdout)
    until(lambda: READY in said.read_text(), WAIT_MS / 1_000)


def kill(walk: Walk) -> None:
    """Pull the plug."""
    if walk.server is not None:
        walk.server.send_signal(signal.SIGKILL)
        walk.server.wait()
        walk.server = None


def open_page(walk: Walk) -> None:
    """Open the page of an empty service."""
    walk.page.goto(walk.url)
    expect(walk.page.get_by_role("heading", name="Nothing here yet")).to_be_visible()


def err(walk: Walk) -> None:
    """Ask for too high a rank: the first error says at the field what is allowed."""
    walk.page.get_by_role("button", name="Try it").first.click()
    step = walk.page.locator("#try-create")
    step.locator("[name=rank]").fill("12")
    step.get_by_role("button", name="Create", exact=True).click()
    expect(step.get_by_role("alert").first).to_have_text(
        "rank is 12; it is at most min(in_features, out_features) = 10"
    )


def train(walk: Walk) -> None:
    """Create and train a model by the drawer, and see its curve."""
    page = walk.page
    step = page.locator("#try-create")
    step.locator("[name=rank]").fill("4")
    step.get_by_role("button", name="Create", exact=True).click()
    expect(step.locator(".outcome")).to_contain_text("201")
    step = page.locator("#try-train")
    step.get_by_role("button", name="Train", exact=True).click()
    expect(step.locator(".outcome")).to_contain_text("10 / 10")
    expect(page.locator("#jobs tbody tr")).to_have_class("succeeded")
    expect(page.locator("#chart .readout")).to_contain_text("at epoch 10")
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()


def read_digit(walk: Walk) -> None:
    """Have four adapters trained on digits, and draw one for them."""
    page = walk.page
    page.get_by_role("button", name="Train four digit readers").click()
    expect(page.locator(".reader").filter(has_text="of the held-out digits right")).to_have_count(4)
    draw(page, STROKES[0])
    expect(page.locator(".reader .answer").last).to_have_text("0")


def still_there(walk: Walk) -> None:
    """See that the page is live and shows the five models and jobs, whatever has happened."""
    page = walk.page
    expect(page.locator("#header")).to_contain_text("live")
    expect(page.locator("#models tbody tr")).to_have_count(5)
    expect(page.locator("#jobs tbody tr.succeeded")).to_have_count(5)
    expect(page.locator("#chart .readout")).to_contain_text("at epoch")
    expect(page.locator(".reader")).to_have_count(4)


def reload(walk: Walk) -> None:
    """Load the page again: all is there."""
    walk.page.reload()
    still_there(walk)


def kill_and_restart(walk: Walk) -> None:
    """Kill the service and start it again: the page comes back by itself, and all is there."""
    kill(walk)
    expect(walk.page.locator("#header")).to_contain_text("not live")
    serve(walk)
    still_there(walk)


def to_peft(walk: Walk) -> None:
    """Take the best reader to PEFT: it gives the outputs of the service."""
    walk.lora("export", "digits, rank 8", "adapter", "--module", "layer")
    walk.lora("export", "digits, rank 8", "weights.safetensors", "--weights")
    tensors = load_file(walk.folder / "weights.safetensors")
    layer = torch.nn.Linear(64, 10)
    layer.load_state_dict({"weight": tensors["base.weight"], "bias": tensors["base.bias"]})
    network = PeftModel.from_pretrained(torch.nn.ModuleDict({"layer": layer}), str(walk.folder / "adapter"))
    x = torch.rand(3, 64, generator=torch.Generator().manual_seed(0))
    (walk.folder / "x.json").write_text(json.dumps(x.tolist()))
    walk.lora("forward", "digits, rank 8", "x.json", "-o", "y.safetensors")
    outputs = load_file(walk.folder / "y.safetensors")["outputs"]
    torch.testing.assert_close(network.base_model.model["layer"](x), outputs, rtol=1e-5, atol=1e-5)


def remove(walk: Walk) -> None:
    """Delete all models: the page shows none, by itself."""
    walk.lora("rm", "--yes", *walk.lora("models", "--quiet").split())
    expect(walk.page.locator("#models tbody tr")).to_have_count(0)


Step = Callable[[Walk], None]
STEPS: tuple[Step, ...] = (demo, serve, open_page, err, train, read_digit, reload, kill_and_restart, to_peft, remove)


@contextmanager
def a_page() -> Iterator[Page]:
    """A window of the system's browser, in English."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 900})
        context.set_default_timeout(WAIT_MS)
        yield context.new_page()
        browser.close()


def spend(walk: Walk, watched: Callable[..., Iterable[Step]] = iter) -> dict[str, float]:
    """The seconds that each step took; each must do what its first line says."""
    took = {}
    try:
        for step in watched(STEPS):
            began = time.monotonic()
            step(walk)
            took[step.__name__] = time.monotonic() - began
    finally:
        kill(walk)
    return took


def main() -> None:
    """Spend the ten minutes from nothing, and print what took how long."""
    with tempfile.TemporaryDirectory() as place, a_page() as page:
        clone = Path(place, "lora-service")
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        took = spend(Walk(clone, page, clone / ".venv" / "bin" / "python"), track)
    for name, seconds in took.items():
        print(f"{seconds:7.1f} s  {name.replace('_', ' ')}")
    print(f"{sum(took.values()):7.1f} s  in all")


if __name__ == "__main__":
    main()
