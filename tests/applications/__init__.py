import pytest

pytest.register_assert_rewrite("tests.applications.life", "tests.applications.environment")
