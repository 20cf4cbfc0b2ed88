"""Write the client for plain code from the one for asynchronous code: `python -m tools.twins`."""

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parent.parent / "service" / "client"
AIO, SYNC = CLIENT / "aio", CLIENT / "sync"

# What plain code says instead, in this order.
WORDS = {
    r"\basync (?=def|with|for)": "",
    r"\bawait asyncio\.to_thread\(([\w.]+(?:\(\w+\)\.\w+)?)(?:, )?": r"\1(",
    r"\bawait ": "",
    r"\basyncio\b": "time",
    r"\basynccontextmanager\b": "contextmanager",
    r"\bAsync(?=[A-Z])": "",
    r"__a(?=enter__|exit__)": "__",
    r"\ba(?=(close|read|iter_lines)\b)": "",
    r"\bservice\.client\.aio\b": "service.client.sync",
}


def plain(text: str) -> str:
    """The plain twin of an asynchronous module."""
    for asynchronous, instead in WORDS.items():
        text = re.sub(asynchronous, instead, text)
    return _ruff("format", _ruff("check", text, "--fix", "--unsafe-fixes", "--select", "I,F401,UP028"))


def _ruff(verb: str, text: str, *options: str) -> str:
    command = [sys.executable, "-m", "ruff", verb, *options, "--quiet", "--stdin-filename", str(SYNC / "twin.py"), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)  # nosec B603  # our words
    return done.stdout


def twins() -> dict[Path, str]:
    """The plain modules by the files in which they belong."""
    return {SYNC / path.name: plain(path.read_text()) for path in sorted(AIO.glob("*.py")) if path.stem != "__init__"}


if __name__ == "__main__":
    for path, text in twins().items():
        path.write_text(text)
