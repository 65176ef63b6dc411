"""What the splits measure: a model that remembers sessions, against popularity."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.evaluator.expectation import hit_probability
from components.evaluator.ranking import rank_by_embedding, rank_by_score
from tests.components.test_example_gen import DAY, Shop

THEMES, ITEMS_A_THEME, USERS = 8, 6, 40
K = ITEMS_A_THEME


def write_days(folder: Path, split: dict[str, Any]) -> Shop:
    """On each of two days each user has one session, all of it of one theme, and never the theme of the day before."""
    shop = Shop(folder, split=split, window_days=2)
    items = [f"{theme}-{item}" for theme in range(THEMES) for item in range(ITEMS_A_THEME)]
    (folder / "catalogue.csv").write_text(
        "sku,name,tags,tag_weights\n" + "".join(f"{item},{item},,\n" for item in items)
    )
    draw = np.random.default_rng(0)
    # The first items of each theme are taken most.
    share = np.arange(ITEMS_A_THEME, 0, -1) ** 2
    for number, day in enumerate((DAY.replace(day=DAY.day - 1), DAY)):
        rows = []
        for user in range(USERS):
            theme = (user + 3 * number) % THEMES
            taken = draw.choice(ITEMS_A_THEME, 10, p=share / share.sum())
            rows += [f"u{user},{theme}-{item},{day}T01:{minute:02d}:00Z,1,30" for minute, item in enumerate(taken)]
        shop.log(rows, day=day)
    return shop


def recalls(splits: dict[str, list[dict[str, list[Any]]]]) -> tuple[float, float]:
    """recall@K of a model that remembers what theme each user was last trained on with, and of popularity."""
    theme_of = np.repeat(np.arange(THEMES), ITEMS_A_THEME)

    def row(example: dict[str, list[Any]]) -> int:
        theme, item = map(int, example["candidate_id"][0].decode().split("-"))
        return theme * ITEMS_A_THEME + item

    counts = np.bincount([row(e) for e in splits["train"]], minlength=len(theme_of)).astype(float)
    remembered = {e["query_id"][0]: theme_of[row(e)] for e in splits["train"]}  # in the order of time
    asked = splits["eval"]
    queries = np.eye(THEMES, dtype=np.float32)[[remembered.get(e["query_id"][0], 0) for e in asked]]
    # Items of the theme first, the most popular of them before the others.
    items = np.eye(THEMES, dtype=np.float32)[theme_of] + (counts / counts.sum() / 10)[:, np.newaxis].astype(np.float32)
    true = np.array([row(e) for e in asked])
    of_model, of_popularity = rank_by_embedding(queries, items, true), rank_by_score(counts, true)
    return tuple(float(hit_probability(*ranks, K).mean()) for ranks in (of_model, of_popularity))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("split", "wins"), [({"by": "hash", "share": 0.2}, True), ({"by": "user", "share": 0.2}, False)]
)
def test_a_model_that_remembers_sessions_wins_by_interactions_and_loses_by_users(
    tmp_path: Path, split: dict[str, Any], wins: bool
) -> None:
    """Issue 19. A theme has K items: who knows the session's theme has recall 1, who knows that of the day before has 0."""
    splits, _ = write_days(tmp_path, split).ingest()
    remembers, popularity = recalls(splits)
    assert 0.1 < popularity < 0.6
    assert remembers == pytest.approx(1.0 if wins else 0.0)
