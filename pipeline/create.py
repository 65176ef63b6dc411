"""The pipeline: which step feeds which."""

from collections.abc import Sequence
from datetime import date

from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration.pipeline import Pipeline

from components import recorded, utc
from components.analysis.component import Analyzer
from components.counts.component import Counter
from components.evaluator.eval_config import eval_config
from components.evaluator.evaluator import RetrievalEvaluator
from components.evaluator.ranked import SUMS_SPLIT
from components.evaluator.ranker import Ranker
from components.indexer.component import Indexer
from components.infra_validator.component import InfraValidator
from components.next_day.component import NextDay
from components.pusher.joint import JointPusher
from components.trainer import warm_start
from components.trainer.component import RetrievalTrainer
from components.transform.component import AnalysedTransform
from pipeline.beam_settings import BeamSettings
from pipeline.config import Config
from pipeline.day_inputs import COUNTER, TRAINER, Data, Earlier
from schemas.errors import UserError


def create_pipeline(config: Config, day: date) -> Pipeline:
    """Create the steps that process one day.

    Args:
        config: the settings of all steps.
        day: the UTC day; its number since 1970-01-01 is the span.

    Raises:
        schemas.errors.UserError: the dataset's feature specification or schemas are invalid, or `beam` names an unknown step.
    """
    spec = config.feature_spec()
    spec_json = spec.model_dump_json()
    evaluated = config.evaluator.of(spec)
    shape = warm_start.shape(spec, config.trainer)
    earlier = Earlier(config, day, shape)
    data = Data(config, spec, day, earlier.base_model)

    # The day judges the models trained before it, before anything is trained on it.
    next_day = NextDay(
        examples=data.interactions,
        catalogue=data.catalogue,
        model=earlier.baseline,
        earlier_model=earlier.before_baseline,
        counts=earlier.counts_before,
        settings=evaluated,
        spec=spec,
        day=utc.span(day),
    )
    next_day.add_upstream_nodes(data.checks)

    # The baselines know all days so far, as the model does.
    counter = Counter(
        examples=data.interactions,
        base_counts=earlier.base_counts,
        settings=config.counts.model_dump_json(),
        feature_spec=spec_json,
        day=utc.span(day),
    ).with_id(COUNTER)
    counter.add_upstream_nodes(data.checks)

    # The day's vocabularies, and one graph for training, evaluation and serving.
    analyzer = Analyzer(
        examples=data.interactions,
        base_model=earlier.base_model,
        feature_spec=spec_json,
        day=utc.span(day),
    )
    analyzer.add_upstream_nodes(data.checks)
    transform = AnalysedTransform(
        examples=data.interactions,
        schema=data.schema,
        analysis=analyzer.outputs["analysis"],
        feature_spec=spec_json,
    ).with_id("Transform")

    trainer = RetrievalTrainer(
        run_fn="components.trainer.run.run_fn",
        examples=transform.outputs["transformed_examples"],
        catalogue=data.catalogue,
        transform_graph=transform.outputs["transform_graph"],
        analysis=analyzer.outputs["analysis"],
        base_model=earlier.base_model,
        statistics=data.statistics,
        custom_config={
            "feature_spec": spec_json,
            "trainer": config.trainer.model_dump_json(),
            recorded.SHAPE: shape,
            recorded.SPAN: utc.span(day),
        },
        held_out=data.interactions if config.trainer.early_stopping else None,
    ).with_id(TRAINER)

    trainer.add_upstream_node(next_day)

    indexer = Indexer(
        trainer.outputs["model"],
        data.catalogue,
        data.interactions,
        config.indexer,
        spec.catalogue.filters,
    )

    # First the ranks among the whole catalogue, then TFX's Evaluator over the ranks.
    ranker = Ranker(
        examples=data.interactions,
        catalogue=data.catalogue,
        model=trainer.outputs["model"],
        index=indexer.outputs["index"],
        retriever=indexer.outputs["retriever"],
        baseline_model=earlier.baseline,
        counts=counter.outputs["counts"],
        base_counts=earlier.base_counts,
        settings=evaluated,
        spec=spec,
        day=utc.span(day),
    )
    evaluator = RetrievalEvaluator(
        examples=ranker.outputs["ranked_examples"],
        model=trainer.outputs["model"],
        baseline_model=earlier.baseline,
        example_splits=[SUMS_SPLIT],
        eval_config=eval_config(evaluated, has_history=spec.history_feature is not None),
    )

    # A version that cannot be served, or answers differently from the trained model, is not pushed.
    infra_validator = InfraValidator(
        model=trainer.outputs["model"],
        transform_graph=transform.outputs["transform_graph"],
        index=indexer.outputs["index"],
        retriever=indexer.outputs["retriever"],
        examples=data.interactions,
        catalogue=data.catalogue,
        trainer=config.trainer.model_dump_json(),
        feature_spec=spec_json,
        day=day.isoformat(),
        tensorflow=config.server.tensorflow,
    )

    pusher = JointPusher(
        model=trainer.outputs["model"],
        retriever=indexer.outputs["retriever"],
        index=indexer.outputs["index"],
        evaluation=evaluator.outputs["evaluation"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=infra_validator.outputs["blessing"],
        destination=config.serving,
        day=day,
        label=config.pusher.label,
    ).with_id("Pusher")

    components = [
        *earlier.nodes,
        *data.nodes,
        next_day,
        counter,
        analyzer,
        transform,
        trainer,
        indexer,
        ranker,
        evaluator,
        infra_validator,
        pusher,
    ]
    set_runners(components, config.beam)
    steps = [component.id for component in components if isinstance(component, BaseBeamComponent)]
    if unknown := sorted(set(config.beam.steps) - set(steps)):
        raise UserError(
            f"beam.steps: expected steps that Beam runs ({', '.join(steps)}), received {', '.join(unknown)}."
        )
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(config.pipeline_root),
        components=components,
        enable_cache=True,
    )


def set_runners(components: Sequence[BaseNode], beam: BeamSettings) -> None:
    """Set the Beam runner of every step that uses Beam."""
    for step in components:
        if isinstance(step, BaseBeamComponent):
            step.with_beam_pipeline_args(beam.of(step.id).arguments)
