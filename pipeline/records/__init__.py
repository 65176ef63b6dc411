"""The record in ML Metadata: runs, their steps and artifacts, and the connection to it. Does not import TensorFlow or TFX.

Other modules import from here only, and `pipeline.records.handle`, which imports TFX. The names and shapes of what steps record on
artifacts stand in `components.recorded`.
"""

from pipeline.records.executions import NODE_CONTEXT, RUN_CONTEXT, state
from pipeline.records.lineage import PUSHED, Artifact, Edge, Execution, Graph, Lineage
from pipeline.records.metadata import Records
from pipeline.records.runs import (
    CLOSED,
    EARLIER_MODEL,
    LAST_NODE,
    PASSED_OVER,
    REFRESH,
    UNCHANGED,
    Given,
    Run,
    Step,
    at_work,
    lost_rows,
    new_run_id,
    recalls,
    run_json,
)
from pipeline.records.store import GONE, POSTGRESQL_REFUSALS, Store, connect, connect_once, connection, has_begun, place
from pipeline.records.values import values_of

__all__ = [
    "CLOSED",
    "EARLIER_MODEL",
    "GONE",
    "LAST_NODE",
    "NODE_CONTEXT",
    "PASSED_OVER",
    "POSTGRESQL_REFUSALS",
    "PUSHED",
    "REFRESH",
    "RUN_CONTEXT",
    "UNCHANGED",
    "Artifact",
    "Edge",
    "Execution",
    "Given",
    "Graph",
    "Lineage",
    "Records",
    "Run",
    "Step",
    "Store",
    "at_work",
    "connect",
    "connect_once",
    "connection",
    "has_begun",
    "lost_rows",
    "new_run_id",
    "place",
    "recalls",
    "run_json",
    "state",
    "values_of",
]
