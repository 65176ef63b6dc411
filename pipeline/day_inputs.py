"""The nodes before anything is trained: what a day takes of earlier days, its data, and the checks of them."""

from collections.abc import Sequence
from datetime import date

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.types import BaseChannel, standard_artifacts
from tfx.types.channel import Channel

from components import utc
from components.artifacts import Counts
from components.example_gen.catalogue import CatalogueExampleGen
from components.example_gen.interactions import InteractionExampleGen
from components.example_gen.log_catalogue import LogCatalogueExampleGen
from components.example_gen.settings import FROM_LOG
from components.example_gen.split_names import BLOCKED_SPLIT, EARLIER_SPLIT, JUDGED_SPLIT
from components.example_gen.users import UserExampleGen
from components.example_validator.drift import StoppingDistributionValidator
from components.example_validator.stopping import StoppingExampleValidator
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
from pipeline.config import Config
from schemas import contract
from schemas.features import FeatureSpec

CATALOGUE = "Catalogue"
CATALOGUE_BEFORE = "CatalogueBefore"
NOT_SERVED = (BLOCKED_SPLIT, EARLIER_SPLIT, JUDGED_SPLIT)
COUNTER = "Counter"
TRAINER = "Trainer"
BASELINE = "Baseline"
BEFORE_BASELINE = "BeforeBaseline"
COUNTS_BEFORE = "CountsBefore"
WARM_START = "WarmStart"


class Earlier:
    """What a day takes of earlier days.

    Attributes:
        baseline: the last model blessed before the day, which the candidate must also beat.
        before_baseline: the one before that: it shows, on a day that neither was trained on, whether the newer is better.
        base_model: the channel of the model that training continues from; None if it starts anew.
        base_counts: the channel of the counts that are carried over.
        counts_before: the channel of the counts of the day before.
        nodes: all of them.
    """

    def __init__(self, config: Config, day: date, shape: str) -> None:
        baseline = _blessed_before(day, BASELINE)
        before_baseline = _blessed_before(day, BEFORE_BASELINE, skipped=1)
        base = _blessed_before(day, WARM_START, shape if config.trainer.on_other_shape == "restart" else "")
        counts = Resolver(
            strategy_class=CountedBefore,
            config={"span": utc.span(day), "held_out_hours": config.data.split.hours},
            **{
                key: Channel(type=Counts, producer_component_id=COUNTER) for key in (BASE_COUNTS_KEY, COUNTS_BEFORE_KEY)
            },
        ).with_id(COUNTS_BEFORE)
        self.baseline, self.before_baseline = baseline.outputs[MODEL_KEY], before_baseline.outputs[MODEL_KEY]
        self.base_model = base.outputs[MODEL_KEY] if config.trainer.warm_start else None
        self.base_counts, self.counts_before = counts.outputs[BASE_COUNTS_KEY], counts.outputs[COUNTS_BEFORE_KEY]
        self.nodes = (baseline, before_baseline, base, counts)


class Data:
    """A day's data: interactions joined with item features and user histories, and the checks of them.

    Attributes:
        catalogue: the channel of the items' examples.
        interactions: the channel of the interactions' examples.
        schema: the channel of their schema.
        statistics: the channel of their statistics.
        checks: the nodes that stop the run: training never sees data that breaks the declared schema, nor a day that differs too
            much from the one before.
        nodes: all of them.
    """

    def __init__(self, config: Config, spec: FeatureSpec, day: date, base_model: BaseChannel | None) -> None:
        declared = contract.load(config.dataset, spec)
        before, catalogue = _catalogue(config, spec, day, base_model)
        self.catalogue = catalogue.outputs["examples"]
        users = None
        if spec.users:
            of_window = base_model if config.data.has_other_window and spec.changing_user_features else None
            users = UserExampleGen(config.data, spec, day, of_window).with_id("Users")
        interactions = InteractionExampleGen(
            config.data, spec, day, self.catalogue, base_model, users and users.outputs["examples"]
        ).with_id("Interactions")
        self.interactions = interactions.outputs["examples"]
        of_interactions = Checks("Interaction", interactions, str(declared.interactions))
        of_catalogue = Checks("Catalogue", catalogue, str(declared.catalogue), exclude_splits=NOT_SERVED)
        self.schema = of_interactions.schema.outputs["schema"]
        self.statistics = of_interactions.statistics.outputs["statistics"]
        day_before = _day_before(config, day, of_interactions.statistics.id)
        drift = StoppingDistributionValidator(
            self.statistics, day_before.outputs[STATISTICS_KEY], config.validation, spec
        ).with_id("InteractionDrift")
        self.checks = [of_interactions.validator, of_catalogue.validator, drift]
        generators = [node for node in (before, catalogue, users, interactions) if node]
        self.nodes = (*generators, *of_interactions.nodes, *of_catalogue.nodes, day_before, drift)


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


def _catalogue(
    config: Config, spec: FeatureSpec, day: date, base_model: BaseChannel | None
) -> tuple[BaseNode | None, BaseComponent]:
    """Create the step for the day's catalogue and, if catalogues are made from the log, the resolver of an earlier day's."""
    if config.data.catalogue != FROM_LOG:
        of_window = base_model if config.data.has_other_window and spec.changing_item_features else None
        return None, CatalogueExampleGen(config.data, spec, day, of_window).with_id(CATALOGUE)
    before = Resolver(
        strategy_class=CatalogueBefore,
        config={"span": utc.span(day)},
        **{
            BASE_CATALOGUE_KEY: Channel(type=standard_artifacts.Examples, producer_component_id=CATALOGUE),
        },
    ).with_id(CATALOGUE_BEFORE)
    base = before.outputs[BASE_CATALOGUE_KEY]
    return before, LogCatalogueExampleGen(config.data, spec, day, base).with_id(CATALOGUE)


def _day_before(config: Config, day: date, statistics: str) -> Resolver:
    """Create the resolver of the day before's statistics, given the id of the node that makes them."""
    return Resolver(
        strategy_class=TrainedBefore,
        config={
            "span": utc.span(day),
            "after_first_run": config.trainer.warm_start and config.data.has_other_window,
        },
        **{
            STATISTICS_KEY: Channel(type=standard_artifacts.ExampleStatistics, producer_component_id=statistics),
            MODEL_KEY: Channel(type=standard_artifacts.Model, producer_component_id=TRAINER),
        },
    ).with_id("DayBefore")


def _blessed_before(day: date, node: str, shape: str = "", skipped: int = 0) -> Resolver:
    """Resolve the newest blessed model of an earlier day, from any run of this pipeline."""
    return Resolver(
        strategy_class=BlessedBefore,
        config={"span": utc.span(day), "shape": shape, "skipped": skipped},
        **{
            MODEL_KEY: Channel(type=standard_artifacts.Model, producer_component_id=TRAINER),
            BLESSING_KEY: Channel(type=standard_artifacts.ModelBlessing, producer_component_id="RetrievalEvaluator"),
        },
    ).with_id(node)
