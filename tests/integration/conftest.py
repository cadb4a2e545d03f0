"""Helpers whose assertions are explained as those of tests are."""

import pytest

pytest.register_assert_rewrite("running", "thirdway")
