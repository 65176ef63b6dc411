"""Merged answers of shards are those of brute force over all items, to the last tie."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ndr_client.merging import merged


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_the_merged_answer_is_that_of_one_index(shards: int, batch: int, items: int, seed: int) -> None:
    """Few distinct scores, so that most are tied; ids of different lengths, and with trailing zeros."""
    random = np.random.default_rng(seed)
    catalogue = list({b"i%d" % n + b"\0" * int(random.integers(3)) for n in range(items)})
    of_shard = random.integers(0, shards, len(catalogue))
    k = random.integers(1, 12, batch).astype(np.int32)
    scores = random.choice([-0.5, 0.0, 0.25], (batch, len(catalogue))).astype(np.float32)
    found = random.random((batch, len(catalogue))) < 0.8  # the others are excluded, or do not pass
    answers = []
    for shard in range(shards):
        own = np.flatnonzero(of_shard == shard).tolist()
        width = min(int(k.max()), len(own))
        ids, values = np.full((batch, width), b"", object), np.full((batch, width), -2.0, np.float32)
        for query in range(batch):
            some = sorted((-scores[query, n], catalogue[n]) for n in own if found[query, n])[: k[query]]
            for place, (value, item) in enumerate(some):
                ids[query, place], values[query, place] = item, -value
        answers.append((ids, values))
    ids, values = merged(answers, k)
    width = min(int(k.max()), len(catalogue))
    assert ids.shape == values.shape == (batch, min(int(k.max()), sum(each.shape[1] for each, _ in answers)))
    for query in range(batch):
        exact = sorted((-scores[query, n], item) for n, item in enumerate(catalogue) if found[query, n])[: k[query]]
        missing = width - len(exact)
        assert ids[query].tolist() == [item for _, item in exact] + [b""] * missing
        assert values[query].tolist() == [-value for value, _ in exact] + [-2.0] * missing
