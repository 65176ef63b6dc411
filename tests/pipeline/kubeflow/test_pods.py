"""The rules by which steps share pods, on pipelines of a few steps and on any."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.kubeflow.pods import Pod, share_pods


def pods(upstream: dict[str, list[str]], reading: str, alone: str = "", large: str = "") -> list[tuple[str, ...]]:
    return [pod.steps for pod in share_pods(upstream, set(reading), set(alone), lambda step: step in large)]


def test_steps_that_read_nothing_run_with_the_first_step_that_needs_them() -> None:
    # s, a schema, is needed by x and by y behind it; v, a validator, reads what x made, and y waits for it.
    upstream = {"s": [], "x": ["s"], "v": ["s", "x"], "y": ["s", "v", "x"]}
    assert pods(upstream, "xy", alone="x") == [("s", "x"), ("v", "y")]


def test_steps_in_a_row_share_a_pod_where_their_machines_are_equal() -> None:
    row = {"a": [], "b": ["a"], "c": ["a", "b"], "d": ["c"]}
    assert pods(row, "abcd") == [("a", "b", "c", "d")]
    assert pods(row, "abcd", large="c") == [("a", "b"), ("c",), ("d",)]
    assert pods(row, "abcd", alone="a") == [("a",), ("b", "c", "d")]


def test_steps_that_can_run_at_once_do_not_share_a_pod() -> None:
    # b and c both come behind a alone, and d behind both.
    fork = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    assert pods(fork, "abcd") == [("a",), ("b",), ("c",), ("d",)]


@st.composite
def pipelines(draw: st.DrawFn) -> tuple[dict[str, list[str]], set[str], str]:
    """Any pipeline whose last step comes behind all others, the steps that read, and those on a large machine."""
    names = "abcdefghij"[: draw(st.integers(2, 10))]
    upstream = {
        name: sorted(draw(st.sets(st.sampled_from(names[:number])))) if number else []
        for number, name in enumerate(names)
    }
    upstream[names[-1]] = list(names[:-1])
    return upstream, {names[-1], *draw(st.sets(st.sampled_from(names)))}, "".join(draw(st.sets(st.sampled_from(names))))


@given(pipelines())
def test_every_step_is_in_one_pod_and_waits_for_all_that_it_waited_for(
    drawn: tuple[dict[str, list[str]], set[str], str],
) -> None:
    upstream, reading, large = drawn
    shared: list[Pod] = share_pods(upstream, reading, set(), lambda step: step in large)
    ran: list[str] = []
    behind: dict[str, set[str]] = {}  # by pod, all that come before it
    pod_of = {step: pod.reading[0] for pod in shared for step in pod.steps}
    for pod in shared:
        behind[pod.reading[0]] = set(pod.behind).union(*(behind[each] for each in pod.behind))
        for step in pod.steps:
            for needed in upstream[step]:
                assert needed in ran
                assert pod_of[needed] in {pod.reading[0], *behind[pod.reading[0]]}
            ran.append(step)
        assert len({step in large for step in pod.reading}) == 1
    assert sorted(ran) == sorted(upstream)
