"""Reads ML Metadata's executions: their run and node, their state, and their duration.

ML Metadata has no join: with many executions, asking for the contexts of each takes most of the time.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from ml_metadata import ListOptions, OrderByField
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.records.store import Store

RUN_CONTEXT = "pipeline_run"
NODE_CONTEXT = "node"
STATES = {
    mlmd.Execution.COMPLETE: "complete",
    mlmd.Execution.CACHED: "cached",
    mlmd.Execution.FAILED: "failed",
    mlmd.Execution.CANCELED: "canceled",
}
UNFINISHED = "unfinished"
FEW = 50  # this many calls take less time than reading all executions
A_PAGE = 100  # executions that ML Metadata returns in one call


def runs_of(store: Store, executions: Collection[int]) -> dict[int, str]:
    """Map each execution to the id of its run."""
    return _names(store, executions, RUN_CONTEXT)


def nodes_of(store: Store, executions: Collection[int]) -> dict[int, str]:
    """Map each execution to the id of its pipeline node."""
    return {execution: name.rpartition(".")[2] for execution, name in _names(store, executions, NODE_CONTEXT).items()}


def state(execution: mlmd.Execution) -> str:
    """Return the state: `complete`, `cached`, `failed`, `canceled` or `unfinished`."""
    return STATES.get(execution.last_known_state, UNFINISHED)


def seconds(execution: mlmd.Execution) -> float | None:
    """Return the duration since its first attempt, in seconds; None if it did not end."""
    if state(execution) == UNFINISHED:
        return None
    return (execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000


def instant(milliseconds: int) -> str:
    """Convert ML Metadata's time, in milliseconds since 1970-01-01 UTC, to ISO 8601."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _names(store: Store, executions: Collection[int], kind: str) -> dict[int, str]:
    if len(executions) <= FEW:
        return {
            execution: context.name
            for execution in executions
            for context in store.get_contexts_by_execution(execution)
            if context.type == kind
        }
    contexts = store.get_contexts_by_type(kind)
    wanted = set(executions)
    return {
        execution.id: context.name
        for context in contexts
        for execution in _down_to(store, context.id, min(wanted), max(A_PAGE, 2 * len(wanted) // len(contexts)))
        if execution.id in wanted
    }


def _down_to(store: Store, context: int, oldest: int, guess: int) -> Sequence[mlmd.Execution]:
    """Return the executions of a context from one on, and perhaps older ones; `guess` is the expected number."""
    newest_first = ListOptions(limit=guess, order_by=OrderByField.ID, is_asc=False)
    executions: list[mlmd.Execution] = store.get_executions_by_context(context, newest_first)
    if len(executions) < guess or executions[-1].id <= oldest:
        return executions
    return store.get_executions_by_context(context)
