"""What several tests of engines use."""

import pytest

from workflow_scripts.core.running import residents


@pytest.fixture(scope="module")
def own_engines(tmp_path_factory):
    """Let no engine of another run serve these tests, and none of theirs stay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(residents.FOLDER, str(tmp_path_factory.mktemp("engines")))
        yield
        residents.retire()
