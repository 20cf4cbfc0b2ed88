"""Programs of the system that some tests need."""

import os
import shutil

import pytest


def needs(program: str) -> None:
    """Skip the test where a program is absent; fail it where TEST_NEED_ALL says that none may be."""
    if shutil.which(program) is None:
        missing = f"{program} is not installed"
        if os.environ.get("TEST_NEED_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
