"""Sends logged queries to two versions, and compares their answers: what a canary would change."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich.table import Table

from ndr_client import Client, Found
from ndr_client.client import Version
from pipeline.monitoring.requests import Query

FIRST = 10
K = 100  # if the query was only embedded


@dataclass(frozen=True)
class Side:
    """The answers of one version.

    Attributes:
        asked: the number or label asked for.
        version: the version that answered last.
        p50_ms, p99_ms: percentiles of the time until an answer, one query at a time.
        empty: the number of queries without an item.
        best_score: the mean score of the first items.
    """

    asked: str
    version: int
    p50_ms: float
    p99_ms: float
    empty: int
    best_score: float


@dataclass(frozen=True)
class Shadow:
    """Two versions on the same queries.

    Attributes:
        queries: the number of queries.
        one: the first version.
        other: the second version.
        overlap_at_10: the mean share of common items among the first ten (or all, if a query asked for fewer).
        overlap_at_k: the same among all items asked for.
        same_first: the share of queries with the same first item.
        score_shift: the mean change of the first item's score, from the first version to the second.
        score_shift_p99: the 99th percentile of the absolute change.
    """

    queries: int
    one: Side
    other: Side
    overlap_at_10: float
    overlap_at_k: float
    same_first: float
    score_shift: float
    score_shift_p99: float


def compare(client: Client, queries: Sequence[Query], one: Version, other: Version) -> Shadow:
    """Ask both versions for every query, in turns, so that other load on the machine affects both.

    Args:
        client: a client of a server with both.
        queries: not empty.
        one: a version's number or label.
        other: a version's number or label.

    Raises:
        grpc.RpcError: the server lacks a version, or cannot answer.
    """
    answers: dict[int, list[Found]] = {0: [], 1: []}
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for number, query in enumerate(queries):
        for side in (0, 1) if number % 2 else (1, 0):
            begun = time.perf_counter()
            answer = client.retrieve([query.example], query.k or K, version=(one, other)[side])
            seconds[side].append(time.perf_counter() - begun)
            answers[side].append(answer)
    pairs = list(zip(answers[0], answers[1], strict=True))
    shifts = [b.scores[0, 0] - a.scores[0, 0] for a, b in pairs if _ids(a) and _ids(b)] or [np.nan]
    return Shadow(
        queries=len(queries),
        one=_side(one, answers[0], seconds[0]),
        other=_side(other, answers[1], seconds[1]),
        overlap_at_10=float(np.mean([overlap(_ids(a)[:FIRST], _ids(b)[:FIRST]) for a, b in pairs])),
        overlap_at_k=float(np.mean([overlap(_ids(a), _ids(b)) for a, b in pairs])),
        same_first=float(np.mean([_ids(a)[:1] == _ids(b)[:1] for a, b in pairs])),
        score_shift=float(np.mean(shifts)),
        score_shift_p99=float(np.quantile(np.abs(shifts), 0.99)),
    )


def overlap(first: Sequence[bytes], second: Sequence[bytes]) -> float:
    """Return the share of the longer list that both contain; 1 if both are empty."""
    return len({*first} & {*second}) / max(len(first), len(second)) if first or second else 1.0


def table(shadow: Shadow) -> Table:
    """Make a table of both versions, and of their agreement."""
    shown = Table("", shadow.one.asked, shadow.other.asked, title=f"{shadow.queries:,} queries", title_justify="left")
    for name, value in asdict(shadow.one).items():
        if name != "asked":
            shown.add_row(name.replace("_", " "), _number(value), _number(getattr(shadow.other, name)))
    shown.add_section()
    for name in ("overlap_at_10", "overlap_at_k", "same_first", "score_shift", "score_shift_p99"):
        shown.add_row(name.replace("_at_", "@").replace("_", " "), "", f"{getattr(shadow, name):.4f}")
    return shown


def _side(asked: Version, answers: Sequence[Found], seconds: Sequence[float]) -> Side:
    best = [answer.scores[0, 0] for answer in answers if _ids(answer)]
    return Side(
        asked=str(asked),
        version=answers[-1].version,
        p50_ms=1000 * float(np.quantile(seconds, 0.5)),
        p99_ms=1000 * float(np.quantile(seconds, 0.99)),
        empty=len(answers) - len(best),
        best_score=float(np.mean(best)) if best else float("nan"),
    )


def _ids(answer: Found) -> list[bytes]:
    return [item for item in answer.item_ids[0] if item]


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"
