from collections.abc import Iterator
from pathlib import Path

import pytest
from shops import DAY, YESTERDAY, Forks, arguments, write_shop


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    started = Forks(tmp_path_factory.mktemp("forks"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def undisturbed(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root on which the shop's two days were run."""
    root = tmp_path_factory.mktemp("undisturbed")
    write_shop(root)
    for day in (YESTERDAY, DAY):
        answer = forks("run", "--date", day.isoformat(), *arguments(root))
        assert answer.returncode == 0, answer.stdout + answer.stderr
    return root
