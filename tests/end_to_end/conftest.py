import fcntl
import os

import pytest

from tests.end_to_end.shops import Undisturbed
from tests.forks import Forks


@pytest.fixture(scope="session")
def undisturbed(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The shop's two days, run once for all workers of pytest-xdist, the others of which wait."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "two_days"
    folder.mkdir(exist_ok=True)
    found = Undisturbed(folder)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.is_made:
            found.make(forks)
    return found
