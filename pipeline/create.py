"""The pipeline: which step feeds which."""

from collections.abc import Sequence
from datetime import date

from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration.pipeline import Pipeline
from tfx.types import BaseChannel, standard_artifacts
from tfx.types.channel import Channel

from components import recorded
from components.analysis.component import Analyzer
from components.artifacts import Counts
from components.counts.component import Counter
from components.evaluator.evaluator import RetrievalEvaluator, eval_config
from components.evaluator.ranked import SUMS_SPLIT
from components.evaluator.ranker import Ranker
from components.example_gen import sources
from components.example_gen.catalogue import CatalogueExampleGen
from components.example_gen.interactions import InteractionExampleGen
from components.example_gen.log_catalogue import LogCatalogueExampleGen
from components.example_gen.point_in_time import EARLIER_SPLIT, JUDGED_SPLIT
from components.example_gen.settings import FROM_LOG
from components.example_gen.split_names import BLOCKED_SPLIT
from components.example_gen.users import UserExampleGen
from components.example_validator.drift import StoppingDistributionValidator
from components.example_validator.stopping import StoppingExampleValidator
from components.indexer.component import Indexer
from components.infra_validator.component import InfraValidator
from components.next_day.component import NextDay
from components.pusher.joint import JointPusher
from components.resolver.earlier import (
    BASE_CATALOGUE_KEY,
    BASE_COUNTS_KEY,
    BLESSING_KEY,
    COUNTS_BEFORE_KEY,
    MODEL_KEY,
    STATISTICS_KEY,
    BlessedBefore,
    CatalogueBefore,
    CountedBefore,
    TrainedBefore,
)
from components.schema_gen.declared import DeclaredSchema
from components.statistics_gen.component import ColumnStatisticsGen
from components.trainer import warm_start
from components.trainer.component import RetrievalTrainer
from components.transform.component import AnalysedTransform
from pipeline.beam_settings import BeamSettings
from pipeline.config import Config
from schemas import contract
from schemas.errors import UserError
from schemas.features import FeatureSpec

CATALOGUE = "Catalogue"
CATALOGUE_BEFORE = "CatalogueBefore"
NOT_SERVED = (BLOCKED_SPLIT, EARLIER_SPLIT, JUDGED_SPLIT)
COUNTER = "Counter"
NEXT_DAY = "NextDay"
TRAINER = "Trainer"
BASELINE = "Baseline"
BEFORE_BASELINE = "BeforeBaseline"
COUNTS_BEFORE = "CountsBefore"
WARM_START = "WarmStart"


def create_pipeline(config: Config, day: date) -> Pipeline:
    """Create the steps that process one day.

    Args:
        config: the settings of all steps.
        day: the UTC day; its number since 1970-01-01 is the span.

    Raises:
        schemas.errors.UserError: the dataset's feature specification or schemas are invalid, or `beam` names an unknown step.
    """
    spec = config.feature_spec()
    declared = contract.load(config.dataset, spec)
    spec_json = spec.model_dump_json()
    evaluated = config.evaluator.of(spec)
    shape = warm_start.shape(spec, config.trainer)

    # The model that training continues from is the last one blessed before the day; the candidate must also beat it.
    baseline = _blessed_before(day, BASELINE)
    base = _blessed_before(day, WARM_START, shape if config.trainer.on_other_shape == "restart" else "")
    base_model = base.outputs[MODEL_KEY] if config.trainer.warm_start else None

    # The blessed model before that one shows, on a day that neither was trained on, whether the newer is better.
    before_baseline = _blessed_before(day, BEFORE_BASELINE, skipped=1)
    counts_before = Resolver(
        strategy_class=CountedBefore,
        config={"span": sources.span(day), "held_out_hours": config.data.split.hours},
        **{key: Channel(type=Counts, producer_component_id=COUNTER) for key in (BASE_COUNTS_KEY, COUNTS_BEFORE_KEY)},
    ).with_id(COUNTS_BEFORE)

    # The day's data: interactions joined with item features and user histories.
    catalogue_before, catalogue = _catalogue(config, spec, day, base_model)
    users = None
    if spec.users:
        of_window = base_model if config.data.has_other_window and spec.changing_user_features else None
        users = UserExampleGen(config.data, spec, day, of_window).with_id("Users")
    interactions = InteractionExampleGen(
        config.data, spec, day, catalogue.outputs["examples"], base_model, users and users.outputs["examples"]
    ).with_id("Interactions")

    # Training never sees data that breaks the declared schema.
    interaction_checks = Checks("Interaction", interactions, str(declared.interactions))
    catalogue_checks = Checks("Catalogue", catalogue, str(declared.catalogue), exclude_splits=NOT_SERVED)

    # Nor a day that differs too much from the one before.
    day_before = Resolver(
        strategy_class=TrainedBefore,
        config={
            "span": sources.span(day),
            "after_first_run": config.trainer.warm_start and config.data.has_other_window,
        },
        **{
            STATISTICS_KEY: Channel(
                type=standard_artifacts.ExampleStatistics, producer_component_id=interaction_checks.statistics.id
            ),
            MODEL_KEY: Channel(type=standard_artifacts.Model, producer_component_id=TRAINER),
        },
    ).with_id("DayBefore")
    drift = StoppingDistributionValidator(
        interaction_checks.statistics.outputs["statistics"],
        day_before.outputs[STATISTICS_KEY],
        config.validation,
        spec,
    ).with_id("InteractionDrift")

    checks = [interaction_checks.validator, catalogue_checks.validator, drift]

    # The day judges the models trained before it, before anything is trained on it.
    next_day = NextDay(
        examples=interactions.outputs["examples"],
        catalogue=catalogue.outputs["examples"],
        model=baseline.outputs[MODEL_KEY],
        earlier_model=before_baseline.outputs[MODEL_KEY],
        counts=counts_before.outputs[COUNTS_BEFORE_KEY],
        settings=evaluated,
        spec=spec,
        day=sources.span(day),
    ).with_id(NEXT_DAY)
    next_day.add_upstream_nodes(checks)

    # The baselines know all days so far, as the model does.
    counter = Counter(
        interactions.outputs["examples"],
        counts_before.outputs[BASE_COUNTS_KEY],
        config.counts,
        spec,
        sources.span(day),
    ).with_id(COUNTER)
    counter.add_upstream_nodes(checks)

    # The day's vocabularies, and one graph for training, evaluation and serving.
    analyzer = Analyzer(interactions.outputs["examples"], base_model, spec, sources.span(day))
    analyzer.add_upstream_nodes(checks)
    transform = AnalysedTransform(
        examples=interactions.outputs["examples"],
        schema=interaction_checks.schema.outputs["schema"],
        analysis=analyzer.outputs["analysis"],
        spec=spec,
    ).with_id("Transform")

    trainer = RetrievalTrainer(
        run_fn="components.trainer.run.run_fn",
        examples=transform.outputs["transformed_examples"],
        catalogue=catalogue.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        analysis=analyzer.outputs["analysis"],
        base_model=base_model,
        statistics=interaction_checks.statistics.outputs["statistics"],
        custom_config={
            "feature_spec": spec_json,
            "trainer": config.trainer.model_dump_json(),
            recorded.SHAPE: shape,
            recorded.SPAN: sources.span(day),
        },
        held_out=interactions.outputs["examples"] if config.trainer.early_stopping else None,
    ).with_id(TRAINER)

    trainer.add_upstream_node(next_day)

    indexer = Indexer(
        trainer.outputs["model"],
        catalogue.outputs["examples"],
        interactions.outputs["examples"],
        config.indexer,
        spec.catalogue.filters,
    )

    # First the ranks among the whole catalogue, then TFX's Evaluator over the ranks.
    ranker = Ranker(
        examples=interactions.outputs["examples"],
        catalogue=catalogue.outputs["examples"],
        model=trainer.outputs["model"],
        index=indexer.outputs["index"],
        retriever=indexer.outputs["retriever"],
        baseline_model=baseline.outputs[MODEL_KEY],
        counts=counter.outputs["counts"],
        base_counts=counts_before.outputs[BASE_COUNTS_KEY],
        settings=evaluated,
        spec=spec,
        day=sources.span(day),
    )
    evaluator = RetrievalEvaluator(
        examples=ranker.outputs["ranked_examples"],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs[MODEL_KEY],
        example_splits=[SUMS_SPLIT],
        eval_config=eval_config(evaluated, has_history=spec.history_feature is not None),
    )

    # A version that cannot be served, or answers differently from the trained model, is not pushed.
    infra_validator = InfraValidator(
        model=trainer.outputs["model"],
        transform_graph=transform.outputs["transform_graph"],
        index=indexer.outputs["index"],
        retriever=indexer.outputs["retriever"],
        examples=interactions.outputs["examples"],
        catalogue=catalogue.outputs["examples"],
        trainer=config.trainer,
        spec=spec,
        day=day,
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
        baseline,
        before_baseline,
        base,
        counts_before,
        *([catalogue_before] if catalogue_before else []),
        catalogue,
        *([users] if users else []),
        interactions,
        *interaction_checks.nodes,
        *catalogue_checks.nodes,
        day_before,
        drift,
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
    steps = [each.id for each in components if isinstance(each, BaseBeamComponent)]
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


def _catalogue(
    config: Config, spec: FeatureSpec, day: date, base_model: BaseChannel | None
) -> tuple[BaseNode | None, BaseComponent]:
    """Create the step for the day's catalogue and, if catalogues are made from the log, the resolver of an earlier day's."""
    if config.data.catalogue != FROM_LOG:
        of_window = base_model if config.data.has_other_window and spec.changing_item_features else None
        return None, CatalogueExampleGen(config.data, spec, day, of_window).with_id(CATALOGUE)
    before = Resolver(
        strategy_class=CatalogueBefore,
        config={"span": sources.span(day)},
        **{
            BASE_CATALOGUE_KEY: Channel(type=standard_artifacts.Examples, producer_component_id=CATALOGUE),
        },
    ).with_id(CATALOGUE_BEFORE)
    base = before.outputs[BASE_CATALOGUE_KEY]
    return before, LogCatalogueExampleGen(config.data, spec, day, base).with_id(CATALOGUE)


def _blessed_before(day: date, node: str, shape: str = "", skipped: int = 0) -> Resolver:
    """Resolve the newest blessed model of an earlier day, from any run of this pipeline."""
    return Resolver(
        strategy_class=BlessedBefore,
        config={"span": sources.span(day), "shape": shape, "skipped": skipped},
        **{
            MODEL_KEY: Channel(type=standard_artifacts.Model, producer_component_id=TRAINER),
            BLESSING_KEY: Channel(type=standard_artifacts.ModelBlessing, producer_component_id="RetrievalEvaluator"),
        },
    ).with_id(node)


class Checks:
    """The schema, the statistics and the validator of one kind of examples."""

    def __init__(
        self, kind: str, example_gen: BaseComponent, schema_text: str, exclude_splits: Sequence[str] = ()
    ) -> None:
        self.schema = DeclaredSchema(text=schema_text).with_id(f"{kind}Schema")
        self.statistics = ColumnStatisticsGen(
            examples=example_gen.outputs["examples"], exclude_splits=list(exclude_splits)
        ).with_id(f"{kind}Statistics")
        self.validator = StoppingExampleValidator(
            statistics=self.statistics.outputs["statistics"],
            schema=self.schema.outputs["schema"],
            exclude_splits=list(exclude_splits),
        ).with_id(f"{kind}Validator")
        self.nodes = (self.schema, self.statistics, self.validator)
