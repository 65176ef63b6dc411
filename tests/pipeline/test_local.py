"""Steps of one run share a process."""

import platform

import psutil
import pytest

from pipeline.local import release_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an allocator of another library")
def test_a_step_does_not_keep_the_memory_of_the_step_before() -> None:
    # Regression: the Ranker of a day of five million needed 4.5 GiB, two of them the Counter's, which had ended long before.
    blocks = [b"." * size for size in [100_000] * 4_000]  # too small for pages of their own
    last = blocks[-1]  # lies behind the others, so that their memory stays with the process when they are gone
    blocks.clear()
    kept = psutil.Process().memory_info().rss
    release_memory()
    assert kept - psutil.Process().memory_info().rss > 300_000_000
    assert last
