"""Shows the lineage of an artifact as a tree: what it was made from, and what was made from it."""

from dataclasses import asdict
from typing import Any

from rich.tree import Tree

from components import recorded
from pipeline.inspection.show import artifact_json, code_words, files_words, presence, seconds_words
from pipeline.origin import Origin
from pipeline.records import PUSHED, Artifact, Execution, Graph
from pipeline.words import from_here

NOT_RECORDED = "code and configuration were not recorded"


def lineage_json(graph: Graph, artifact: int, origins: dict[str, Origin | None]) -> dict[str, Any]:
    """Convert nodes and edges to JSON types.

    Args:
        graph: around the artifact.
        artifact: its id.
        origins: the code and configuration of each run in the graph.
    """
    return {
        "artifact": artifact,
        "artifacts": [artifact_json(related) for related in graph.artifacts.values()],
        "executions": [asdict(execution) for execution in graph.executions.values()],
        "edges": [asdict(edge) for edge in graph.edges],
        "runs": {run: asdict(origin) if origin else None for run, origin in origins.items()},
    }


def lineage_tree(graph: Graph, artifact: int, origins: dict[str, Origin | None]) -> Tree:
    """Draw the same as a tree. What two branches share is shown in the first."""
    subject = graph.artifacts[artifact]
    tree = Tree(f"{_named(subject)}, {from_here(subject.uri)}", highlight=False)
    _Up(graph, subject.run).add(tree.add("came from"), artifact)
    users = graph.users(artifact)
    if users:
        _Down(graph, subject.run).add(tree.add("went into"), artifact)
    runs = tree.add("runs")
    for run in sorted(graph.runs()):
        origin = origins.get(run)
        words = f"{code_words(origin)}, configuration {origin.configuration_digest}" if origin else NOT_RECORDED
        runs.add(f"{run}: {words}")
    return tree


class _Branches:
    """Adds branches; names but does not repeat what was shown before.

    Args:
        graph: the artifacts and executions to show.
        run: a run that need not be named.
    """

    def __init__(self, graph: Graph, run: str) -> None:
        self._graph, self._run = graph, run
        self._told: set[int] = set()

    def _step(self, execution: Execution) -> str:
        of_run = "" if execution.run == self._run else f" of {execution.run}"
        state = "" if execution.state == "complete" else f", {execution.state}"
        took = f", {seconds_words(execution.seconds)}" if execution.state == "complete" else ""
        return f"{execution.node}{of_run}{state}{took}"


class _Up(_Branches):
    """An artifact's maker, and the inputs of that."""

    def add(self, tree: Tree, artifact: int) -> None:
        for edge in self._graph.makers(artifact)[:1]:  # the others returned it from the cache
            execution = self._graph.executions[edge.execution]
            self._told.add(execution.id)
            branch = tree.add(self._step(execution))
            for used in self._graph.inputs(execution.id):
                words, is_told = self._words(self._graph.artifacts[used.artifact])
                below = branch.add(f"{used.name}: {words}")
                if not is_told:
                    self.add(below, used.artifact)

    def _words(self, artifact: Artifact) -> tuple[str, bool]:
        """Name an artifact, and tell whether all of it was shown before."""
        makers = [edge.execution for edge in self._graph.makers(artifact.id)]
        if not makers:  # not followed
            return f"{_named(artifact)}, made by {artifact.node} of {artifact.run}", True
        if makers[0] in self._told:
            return f"{artifact.type} {artifact.id} of {self._graph.executions[makers[0]].node} (above)", True
        return _named(artifact), False


class _Down(_Branches):
    """An artifact's users, and their outputs."""

    def add(self, tree: Tree, artifact: int) -> None:
        for edge in self._graph.users(artifact):
            execution = self._graph.executions[edge.execution]
            words = f"{self._step(execution)} (its {edge.name})"
            if execution.id in self._told:
                tree.add(f"{words} (above)")
                continue
            self._told.add(execution.id)
            branch = tree.add(words)
            for output in self._graph.outputs(execution.id):
                product = self._graph.artifacts[output.artifact]
                self.add(branch.add(_named(product)), output.artifact)


def _named(artifact: Artifact) -> str:
    present = presence(artifact)
    words = [f"{artifact.type} {artifact.id}", *([present] if present not in ("yes", "") else [])]
    return ", ".join([*words, *_facts(artifact)])


def _facts(artifact: Artifact) -> list[str]:
    """List facts about some types of artifacts."""
    properties = artifact.properties
    if artifact.type == PUSHED:
        return [f"version {properties[recorded.VERSION]}" if properties.get(recorded.PUSHED) else "nothing was pushed"]
    if artifact.type in ("ModelBlessing", "InfraBlessing") and recorded.BLESSED in properties:
        is_blessed = "blessed" if properties[recorded.BLESSED] else "not blessed"
        return ["withdrawn" if properties.get(recorded.WITHDRAWN) else is_blessed]
    rows, files = (recorded.decoded(properties, name) for name in (recorded.ROWS, recorded.FILES))
    if not rows:
        return []
    words = f"{rows['rows']:,} rows of {rows['kind']}, span {properties[recorded.SPAN]}"
    return [words, *([files_words(files)] if files else [])]
