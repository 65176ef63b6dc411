"""The public yardstick: its protocol by hand, its inputs, and a whole run on a small split of words."""

import json
import math
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from benchmarks import gowalla
from benchmarks.gowalla import HAS, ITEM, PUBLISHED, USER, Inputs, Matrix, cut, popularity, quality, read
from components.evaluator.ranking import Ranks
from components.transform.missing import NO_ITEM
from schemas.features import CANDIDATE_ID, FINGERPRINT_SUFFIX


def matrix(*rows: list[int]) -> Matrix:
    return sparse.csr_array(np.array(rows, np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four groups of people, each with 25 places that no other group has; 11 in train and 3 in test for each of 120."""
    draws = random.Random(1)
    lines: dict[str, list[str]] = {"train.txt": [], "test.txt": []}
    for person in range(120):
        places = draws.sample([f"place-{person % 4}-{number}" for number in range(25)], 14)
        lines["train.txt"].append(" ".join([f"é{person}", *places[:11]]))
        lines["test.txt"].append(" ".join([f"é{person}", *places[11:]]))
    for name, content in lines.items():
        (tmp_path / name).write_text("\n".join(content) + "\n", encoding="utf-8")
    return tmp_path


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gowalla", *arguments])
    gowalla.main()


def test_recall_and_gain_are_means_over_users_with_something_to_find() -> None:
    # The first user finds one of two on place 1: recall 1/2, gain 1 / (1 + 1 / log2(3)). The second has nothing to find and does
    # not count. The third finds its only item on place 20 with a chance of 1/2, as another has the same score.
    to_find = matrix([1, 1, 0], [0, 0, 0], [0, 0, 1])
    found = quality(Ranks(np.array([0, 30, 19]), np.array([0, 0, 1])), to_find)
    assert found.recall == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found.gain == pytest.approx((1 / (1 + 1 / math.log2(3)) + 0.5 / math.log2(21)) / 2)
    assert found.recall_error == 0.0


def test_popularity_ranks_all_that_the_user_does_not_have() -> None:
    # 30 items; item n has 30 - n users in train, the user asked for has the first 15 of them. Behind those, item 15 stands first
    # and item 29 on place 15.
    train = np.tril(np.ones((30, 30), np.float32))
    train[0, :15] = 1.0
    to_find = np.zeros((30, 30), np.float32)
    to_find[0, [15, 29]] = 1.0
    found = popularity(sparse.csr_array(train), sparse.csr_array(to_find))
    assert found.recall == 1.0
    assert found.gain == pytest.approx((1 + 1 / math.log2(16)) / (1 + 1 / math.log2(3)))


def test_a_tenth_of_each_users_items_is_left_out_and_nothing_is_lost() -> None:
    whole = matrix(*([1] * length + [0] * (40 - length) for length in (1, 5, 10, 29)))
    kept, left_out = cut(whole, np.random.default_rng(0))
    # A tenth, rounded down; one of few, and never the only one.
    assert np.diff(left_out.indptr).tolist() == [
        0,
        1,
        1,
        2,
    ]
    assert ((kept + left_out) != whole).nnz == 0
    # Sorted by id a line has no order, and a random tenth is left out.
    drawn = {tuple(cut(whole, np.random.default_rng(seed))[1].indices.tolist()) for seed in range(10)}
    assert len(drawn) > 5


def test_where_lines_have_an_order_their_last_items_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1 30 7 100 9 8\n2 7 8 9 30 100\n")
    (tmp_path / "test.txt").write_text("1 2\n")
    train, _ = read(tmp_path)
    assert not train.has_sorted_indices
    names = [2, 7, 8, 9, 30, 100]
    for seed in range(5):
        assert [names[item] for item in cut(train, np.random.default_rng(seed))[1].indices] == [8, 100]
    (tmp_path / "train.txt").write_text("1 7 8 9 30 100\n2 7 8 9 30 100\n")  # as numbers, not as texts
    assert read(tmp_path)[0].has_sorted_indices


def test_an_epoch_has_every_interaction_once() -> None:
    whole = matrix([1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 1])
    of_epoch = list(Inputs(whole, seed=0, draws=50).batches(1))
    batches = [batch.interactions for batch in of_epoch]
    pairs = [(int(batch[USER][0]), int(batch[ITEM][0])) for batch in batches]
    assert sorted(pairs) == [(0, 0), (0, 1), (0, 3), (1, 1), (1, 2), (2, 3)]
    assert [int(batch[CANDIDATE_ID][0]) for batch in batches] == [item for _, item in pairs]
    has = [set(batch[HAS + FINGERPRINT_SUFFIX].numpy()[0].tolist()) - {NO_ITEM} for batch in batches]
    assert has == [[{0, 1, 3}, {1, 2}, {3}][user] for user, _ in pairs]
    drawn = [batch.uniform_items[ITEM].numpy().tolist() for batch in of_epoch]
    assert all(set(of_batch) == {0, 1, 2, 3} for of_batch in drawn) and drawn[0] != drawn[1]


def test_ids_may_be_any_words_and_be_there_twice(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("9 x y\n\nana y x y\n9 z\nnobody\n")
    (tmp_path / "test.txt").write_text("ana  new\n")
    train, test = read(tmp_path)
    # Users in order: 9, ana; items: x, y, z, new.
    assert train.toarray().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert train.indices.tolist() == [0, 1, 2, 1, 0]  # in the order of the lines
    assert test.toarray().tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]


Break = Callable[[Path], object]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda folder: (folder / "test.txt").unlink(), r"test.txt cannot be read"),
        (
            lambda folder: (folder / "train.txt").write_text("1\n2\n"),
            r"train.txt has no interactions; expected lines of",
        ),
        (lambda folder: (folder / "train.txt").write_bytes(b"\xff\xfe1"), r"train.txt cannot be read"),
        (
            lambda folder: (folder / "test.txt").write_bytes((folder / "train.txt").read_bytes()),
            r"test.txt: 1320 of its",
        ),
        (lambda folder: (folder / "train.txt").write_text("1 2\n"), r"No user has two items in train.txt"),
    ],
)
def test_a_split_that_cannot_be_used_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, break_it: Break, words: str
) -> None:
    break_it(folder)
    with pytest.raises(SystemExit, match=words):
        command(monkeypatch, str(folder))


@pytest.mark.parametrize("option", ["--epochs", "--width", "--batch-size", "--temperature"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "many"])
def test_an_invalid_option_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, f"{option}={value}")
    assert f"argument {option}: invalid positive" in capsys.readouterr().err


def test_without_the_data_it_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, str(tmp_path / "absent"), "--json", str(tmp_path / "figures.json"))
    assert capsys.readouterr().out.startswith("Skipped: ")
    assert not (tmp_path / "figures.json").exists()


def test_another_split_runs_by_the_same_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    options = ["--epochs", "20", "--batch-size", "128"]
    command(monkeypatch, str(folder), "--json", str(figures), *options)
    content = json.loads(figures.read_text())
    assert content["settings"]["counts"] == [120, 100, 1320, 360]
    assert list(content["figures"]["recall_by_epoch"]) == [str(epoch) for epoch in range(2, 21, 2)]
    # What a person has not seen of the own group's 25 places are 14, three of them to be found; popularity knows no groups and
    # finds a fifth. SL@K, whose first 20 are a fifth of these items, finds .91 where a weight of almost 1/2 for all finds .96.
    assert content["headline"]["recall_at_20"] > 0.85
    assert content["figures"]["measured"]["popularity"]["recall"] < 0.35
    assert content["headline"]["seconds"] > 0.0
    assert "SimpleX" not in capsys.readouterr().out  # published of another split


@pytest.mark.parametrize(("counts", "best"), [(c, next(iter(rows))) for c, rows in PUBLISHED.items()])
def test_published_figures_stand_beside_their_split_alone(
    counts: gowalla.Counts, best: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = {"ours": gowalla.Quality(0.18, 0.001, 0.15, 0.001)}
    gowalla.show(gowalla.beside_published(ours, counts), counts)
    assert best in capsys.readouterr().out
    assert gowalla.beside_published(ours, (29_858, 40_981, 810_128, 217_241)) == ours
