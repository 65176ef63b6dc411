"""What a day's steps are given, and what they leave: steps of one run share a process."""

import platform
from datetime import date
from pathlib import Path

import psutil
import pytest

from pipeline import config as configuration
from pipeline.day_run import compile_pipeline, node_of, release_memory

SHOP = Path(__file__).parents[1] / "end_to_end" / "shop" / "shop.yaml"


def settings_of(node: str, *settings: str) -> str:
    compiled = compile_pipeline(configuration.load(SHOP, ["root=/nowhere", *settings]), date(2026, 11, 30))
    text: str = node_of(compiled, node).parameters.parameters["settings"].field_value.string_value
    return text


def test_the_next_days_ranks_do_not_depend_on_how_many_are_searched_for_again() -> None:
    # So a day whose setting changes judges the earlier models by what it has.
    changed = "evaluator.sampled_interactions=7"
    assert settings_of("NextDay", changed) == settings_of("NextDay") != ""
    assert settings_of("Ranker", changed) != settings_of("Ranker")


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
