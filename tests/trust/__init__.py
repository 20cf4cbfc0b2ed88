"""What the service owes to whoever sends it anything at all."""

import pytest

pytest.register_assert_rewrite("tests.trust.invariant")
