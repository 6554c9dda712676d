"""The tests of a group share a worker."""

import pytest


@pytest.mark.xdist_group("one-worker")
def test_groups_have_an_effect(request: pytest.FixtureRequest) -> None:
    """pytest-xdist ignores groups without a word where it does not know the version of pytest."""
    if hasattr(request.config, "workerinput"):
        assert request.node.nodeid.endswith("@one-worker")
