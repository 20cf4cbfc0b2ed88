"""Ask which of the pinned versions have holes that are public: `python -m tools.audit`."""

import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parent.parent / "constraints.txt"
# Strict: a version that nobody could be asked about counts as one that fails.
ASK = ["--strict", "--no-deps", "--disable-pip", "--progress-spinner", "off", "--requirement", str(PINS)]


def audit() -> int:
    """Print what is known of the pinned versions; gives the status, 2 where nobody could be asked."""
    asked = subprocess.run(  # nosec B603  # every word of it stands here
        [sys.executable, "-m", "pip_audit", *ASK], capture_output=True, text=True
    )
    if asked.returncode and not asked.stdout:
        why = (asked.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        print(f"no audit was made, for pip-audit could not ask about every version: {why}", file=sys.stderr)
        return 2
    print(asked.stdout or asked.stderr.strip().splitlines()[-1])
    return asked.returncode


if __name__ == "__main__":
    sys.exit(audit())
