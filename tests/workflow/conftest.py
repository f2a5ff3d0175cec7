"""What the tests of whole workflows share."""

import pytest

import forkserver


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """What jobs take for Python where a test does not ask how processes start and end: forks of one that has the libraries."""
    with forkserver.running(tmp_path_factory.mktemp("forks")) as python:
        yield python
