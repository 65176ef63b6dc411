"""The pipeline of a refresh: the steps of a day that make what is served, over a newer catalogue and a model that is there.

Nothing is trained or judged. What is taken of earlier runs is asked of ML Metadata by their ids, so that lineage has it.
"""

from datetime import date

from tfx.orchestration.pipeline import Pipeline
from tfx.types import BaseChannel, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.types.channel import ExternalPipelineChannel

from components.artifacts import ItemIndex
from components.example_gen.catalogue import CatalogueExampleGen
from components.indexer.component import Indexer
from components.infra_validator.component import InfraValidator
from components.pusher.joint import JointPusher
from components.refresh.component import CatalogueComparison
from components.refresh.query_tower import QueryTowerExport
from pipeline.config import Config
from pipeline.create import set_runners
from pipeline.day_inputs import CATALOGUE, NOT_SERVED, TRAINER, Checks
from pipeline.refresh.refreshing import COMPARISON, Base, pipeline_name
from schemas import contract


def create_refresh(config: Config, base: Base, day: date) -> Pipeline:
    """Create the steps that give a version a newer catalogue.

    Args:
        config: the settings of all steps.
        base: the version.
        day: the newest catalogue up to this UTC day is taken.

    Raises:
        schemas.errors.UserError: the dataset's feature specification or schemas are invalid.
    """
    spec = config.feature_spec()
    model, transform_graph, interactions, evaluation, blessing = (
        _of(config.name, base.model_run, node, key, kind)
        for node, key, kind in (
            (TRAINER, "model", standard_artifacts.Model),
            ("Transform", "transform_graph", standard_artifacts.TransformGraph),
            ("Interactions", "examples", standard_artifacts.Examples),
            ("RetrievalEvaluator", "evaluation", standard_artifacts.ModelEvaluation),
            ("RetrievalEvaluator", "blessing", standard_artifacts.ModelBlessing),
        )
    )
    of_version = pipeline_name(config) if base.is_refreshed else config.name
    base_catalogue = _of(of_version, base.run, CATALOGUE, "examples", standard_artifacts.Examples)
    base_index = _of(of_version, base.run, "Indexer", "index", ItemIndex)

    catalogue = CatalogueExampleGen(config.data, spec.of_newest, day).with_id(CATALOGUE)
    schema = str(contract.load(config.dataset, spec).catalogue)
    checks = Checks("Catalogue", catalogue, schema, exclude_splits=NOT_SERVED)

    # Stops a refresh that would change too much, before anything is embedded.
    comparison = CatalogueComparison(
        catalogue=catalogue.outputs["examples"],
        base_catalogue=base_catalogue,
        settings=config.refresh.model_dump_json(),
    ).with_id(COMPARISON)
    comparison.add_upstream_node(checks.validator)

    # A query tower has in it what it looks up of items.
    tower = None
    if spec.looked_up:
        tower = QueryTowerExport(
            model=model,
            transform_graph=transform_graph,
            catalogue=catalogue.outputs["examples"],
            trainer=config.trainer.model_dump_json(),
            feature_spec=spec.model_dump_json(),
        )
        tower.add_upstream_node(comparison)
    query_tower = tower.outputs["query_tower"] if tower else None

    indexer = Indexer(
        model,
        catalogue.outputs["examples"],
        interactions,
        config.indexer,
        spec.catalogue.filters,
        query_tower,
        base_index,
        comparison.outputs["changes"],
    )
    infra_validator = InfraValidator(
        model=model,
        transform_graph=transform_graph,
        index=indexer.outputs["index"],
        retriever=indexer.outputs["retriever"],
        examples=interactions,
        catalogue=catalogue.outputs["examples"],
        trainer=config.trainer.model_dump_json(),
        feature_spec=spec.model_dump_json(),
        day=base.day.isoformat(),
        tensorflow=config.server.tensorflow,
        query_tower=query_tower,
        least_recall=config.evaluator.minimum_index_recall,
    )
    pusher = JointPusher(
        model=model,
        retriever=indexer.outputs["retriever"],
        index=indexer.outputs["index"],
        evaluation=evaluation,
        model_blessing=blessing,
        infra_blessing=infra_validator.outputs["blessing"],
        destination=config.serving,
        day=base.day,
        label=None,
        refreshes=base.version,
        query_tower=query_tower,
    ).with_id("Pusher")

    components = [catalogue, *checks.nodes, comparison, *([tower] if tower else []), indexer, infra_validator, pusher]
    set_runners(components, config.beam)
    return Pipeline(
        pipeline_name=pipeline_name(config),
        pipeline_root=str(config.pipeline_root),
        components=components,
        enable_cache=True,
    )


def _of(pipeline: str, run: str, node: str, key: str, kind: type[Artifact]) -> BaseChannel:
    """Return the channel of an earlier run's output, made or cached."""
    return ExternalPipelineChannel(
        kind, owner=pipeline, pipeline_name=pipeline, producer_component_id=node, output_key=key, pipeline_run_id=run
    )
