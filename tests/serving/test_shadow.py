"""Two versions on the same queries, against a real server."""

from datetime import UTC, datetime

import pytest
import tensorflow as tf

from ndr_client import Client
from pipeline.asking.shadow import compare, overlap, table
from pipeline.monitoring import requests
from pipeline.monitoring.requests import Query
from schemas.errors import UserError
from serving.settings import RequestLogSettings
from tests.serving.tiny import Pushes, Serve, example
from tests.waiting import wait_for


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ([b"a", b"b"], [b"b", b"a"], 1.0),
        ([b"a", b"b", b"c", b"d"], [b"a", b"x", b"y", b"d"], 0.5),
        ([b"a", b"b", b"c", b"d"], [b"a"], 0.25),
        ([b"a"], [], 0.0),
        ([], [], 1.0),
    ],
)
def test_overlap_is_the_share_of_the_longer_list(one: list[bytes], other: list[bytes], share: float) -> None:
    assert overlap(one, other) == share


def test_two_versions_are_compared_on_the_same_queries(serve: Serve, pushes: Pushes) -> None:
    """Items are named after their push, so that two pushes share none; a rollback has the items of what it brings back."""
    first = pushes.push("one")
    server = serve(pushes.root)
    second = pushes.push("two")
    wait_for(lambda: server.versions.live == second)
    everything = tuple(b"one-%d" % number for number in range(5))
    # The second query excludes all items of the first push, and none of the second's.
    queries = [Query(example(0.6), 3), Query(example(0.6, everything), 2), Query(example(2.1), None)]
    with Client(f"127.0.0.1:{server.port}", timeout=900.0) as client:
        same = compare(client, queries, first, first)
        assert (same.overlap_at_10, same.overlap_at_k, same.same_first, same.score_shift) == (1.0, 1.0, 1.0, 0.0)
        other = compare(client, queries, first, second)
    assert (other.queries, other.one.version, other.other.version) == (3, first, second)
    assert (other.overlap_at_10, other.overlap_at_k, other.same_first) == (0.0, 0.0, 0.0)
    assert (other.one.empty, other.other.empty) == (1, 0)
    # Of the two that have items on both sides: the places are the same.
    assert other.score_shift == pytest.approx(0.0, abs=1e-6)
    assert 0 < other.one.p50_ms <= other.one.p99_ms
    assert table(other).row_count == 10


def test_logged_queries_can_be_asked_again(serve: Serve, pushes: Pushes) -> None:
    pushes.push("one")
    server = serve(pushes.root, request_log=RequestLogSettings(share=1.0, file_seconds=0.1))
    begun = datetime.now(UTC)
    folder = pushes.root.parent / "requests"
    with Client(f"127.0.0.1:{server.port}", timeout=900.0) as client:
        found = client.retrieve([example(0.6, (b"one-1",))], 2)
        client.retrieve({"angle": [2.1], "past": [["a"]]}, 3)
        client.embed("query_tower", [example(0.7)])

        def logged() -> list[Query]:
            try:
                return requests.read(folder, begun)
            except UserError:
                return []

        wait_for(lambda: len(logged()) == 3)
        assert sorted((query.k or 0) for query in logged()) == [0, 2, 3]
        (query,) = (query for query in logged() if query.k == 2)
        asked, sent = map(tf.train.Example.FromString, (query.example, example(0.6, (b"one-1",))))
        assert asked == sent  # their bytes differ: a map's entries have no order
        again = client.retrieve([query.example], query.k or 0)
        assert again.item_ids.tolist() == found.item_ids.tolist()
