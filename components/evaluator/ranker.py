"""The step before the Evaluator: held-out interactions with the rank of their item among the whole catalogue.

The Evaluator that follows is TFX's own; it aggregates these ranks to recall@K by TFMA.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, path_utils

from components.evaluator.metrics import BASELINE, CANDIDATE, POPULARITY, rank_feature
from components.evaluator.ranking import Ranks, rank_by_embedding, rank_by_score
from components.example_gen.catalogue import CATALOGUE_SPLIT
from components.example_gen.interactions import EVAL_SPLIT, TRAIN_SPLIT
from components.indexer.embedding import LoadedTower, candidate_id
from components.trainer.export import ITEM_TOWER, QUERY_TOWER
from schemas.features import CANDIDATE_ID, REWARD

BATCH = 512


class RankerSpec(component_spec.ComponentSpec):
    """Inputs and outputs of the Ranker."""

    PARAMETERS: dict[str, Any] = {}
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "catalogue": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {"ranked_examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)}


class RankerExecutor(base_beam_executor.BaseBeamExecutor):
    """Embeds the catalogue once, then ranks every held-out interaction among it."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        self._log_startup(input_dict, output_dict, exec_properties)
        towers = {
            scorer: path_utils.serving_model_path(model.uri)
            for scorer, models in ((CANDIDATE, input_dict["model"]), (BASELINE, input_dict.get("baseline_model") or []))
            for model in models
        }
        ranked = artifact_utils.get_single_instance(output_dict["ranked_examples"])
        ranked.split_names = artifact_utils.encode_split_names([EVAL_SPLIT])
        destination = os.path.join(artifact_utils.get_split_uri([ranked], EVAL_SPLIT), "ranked_examples")
        with self._make_beam_pipeline() as pipeline:
            items = (
                pipeline
                | "ReadCatalogue" >> _read(input_dict["catalogue"], CATALOGUE_SPLIT)
                | "BatchCatalogue" >> beam.BatchElements(min_batch_size=BATCH, max_batch_size=BATCH)
                | "EmbedItems"
                >> beam.ParDo(EmbedItems({name: os.path.join(folder, ITEM_TOWER) for name, folder in towers.items()}))
            )
            popularity = (
                pipeline
                | "ReadTraining" >> _read(input_dict["examples"], TRAIN_SPLIT)
                | "TrainingItem" >> beam.Map(candidate_id)
                | "CountItems" >> beam.combiners.Count.PerElement()
            )
            _ = (
                pipeline
                | "ReadHeldOut" >> _read(input_dict["examples"], EVAL_SPLIT)
                | "WithReward" >> beam.Filter(has_reward)
                | "BatchHeldOut" >> beam.BatchElements(min_batch_size=BATCH, max_batch_size=BATCH)
                | "Rank"
                >> beam.ParDo(
                    RankHeldOut({name: os.path.join(folder, QUERY_TOWER) for name, folder in towers.items()}),
                    items=beam.pvalue.AsList(items),
                    popularity=beam.pvalue.AsDict(popularity),
                )
                | "WriteRanked" >> beam.io.WriteToTFRecord(destination, file_name_suffix=".gz")
            )


class Ranker(base_beam_component.BaseBeamComponent):
    """Ranks held-out interactions among the whole catalogue.

    Args:
        examples: interactions, with a `train` split (for popularity) and an `eval` split.
        catalogue: the catalogue of the day, split `catalogue`.
        model: the Trainer's model, with both towers.
        baseline_model: the model to beat, if the channel has one; it ranks the same catalogue, new items included, by its own
            towers.

    Output `ranked_examples`: the eval split's examples with a reward above 0, each with a feature `rank_by_SCORER` of two floats,
    `[above, tied]`, for the scorers `candidate` (the model), `baseline` and `popularity` (counts in the training split).
    """

    SPEC_CLASS = RankerSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(RankerExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        catalogue: types.BaseChannel,
        model: types.BaseChannel,
        baseline_model: types.BaseChannel,
    ) -> None:
        super().__init__(
            RankerSpec(
                examples=examples,
                catalogue=catalogue,
                model=model,
                baseline_model=baseline_model,
                ranked_examples=types.Channel(type=standard_artifacts.Examples),
            )
        )


Embedded = tuple[list[bytes], dict[str, NDArray[np.float32]]]
"""The ids of some items, and for each model their [items, width] embeddings."""


class EmbedItems(beam.DoFn):
    """Batches of serialised catalogue examples to `Embedded`.

    Args:
        towers: the item tower's folder by model.
    """

    def __init__(self, towers: dict[str, str]) -> None:
        self._towers = {name: LoadedTower(folder) for name, folder in towers.items()}

    def process(self, batch: list[bytes]) -> Iterator[Embedded]:
        """Called by Beam."""
        yield [candidate_id(example) for example in batch], {n: tower.embed(batch) for n, tower in self._towers.items()}


class RankHeldOut(beam.DoFn):
    """Batches of serialised interactions to the same with the ranks of their items.

    Args:
        towers: the query tower's folder by model.
    """

    def __init__(self, towers: dict[str, str]) -> None:
        self._towers = {name: LoadedTower(folder) for name, folder in towers.items()}
        self._catalogue: Catalogue | None = None

    def start_bundle(self) -> None:
        """Called by Beam: side inputs are fixed for a bundle."""
        self._catalogue = None

    def process(self, batch: list[bytes], items: list[Embedded], popularity: dict[bytes, int]) -> Iterator[bytes]:
        """Called by Beam."""
        if self._catalogue is None:
            self._catalogue = Catalogue(items, popularity)
        catalogue = self._catalogue
        examples = [tf.train.Example.FromString(serialized) for serialized in batch]
        true_rows = np.array([catalogue.rows[_only_value(example, CANDIDATE_ID)] for example in examples], np.int64)
        ranks = {
            name: rank_by_embedding(tower.embed(batch), catalogue.embeddings[name], true_rows)
            for name, tower in self._towers.items()
        }
        ranks[POPULARITY] = rank_by_score(catalogue.popularity, true_rows)
        for position, example in enumerate(examples):
            for scorer, ranked in ranks.items():
                _add_rank(example, scorer, ranked, position)
            yield example.SerializeToString(deterministic=True)


class Catalogue:
    """The day's whole catalogue in memory.

    Attributes:
        rows: the row of every item id.
        embeddings: [items, width] float32 by model.
        popularity: [items] float64, interactions in the training split.
    """

    def __init__(self, items: Iterable[Embedded], popularity: dict[bytes, int]) -> None:
        blocks = sorted(items, key=lambda block: block[0][0])
        ids = [item for block_ids, _ in blocks for item in block_ids]
        self.rows = {item: row for row, item in enumerate(ids)}
        self.embeddings = {name: np.concatenate([embedded[name] for _, embedded in blocks]) for name in blocks[0][1]}
        self.popularity = np.array([popularity.get(item, 0) for item in ids], np.float64)


def has_reward(serialized: bytes) -> bool:
    """Whether a serialised interaction is one that retrieval should lead to."""
    reward: float = tf.train.Example.FromString(serialized).features.feature[REWARD].float_list.value[0]
    return reward > 0.0


def _only_value(example: Any, feature: str) -> bytes:
    value: bytes = example.features.feature[feature].bytes_list.value[0]
    return value


def _add_rank(example: Any, scorer: str, ranks: Ranks, position: int) -> None:
    values = [float(ranks.above[position]), float(ranks.tied[position])]
    example.features.feature[rank_feature(scorer)].float_list.value[:] = values


def _read(artifacts: list[types.Artifact], split: str) -> beam.PTransform:
    patterns = [io_utils.all_files_pattern(uri) for uri in artifact_utils.get_split_uris(artifacts, split)]
    return _ReadFiles(patterns)


class _ReadFiles(beam.PTransform):
    """Serialised examples of gzipped TFRecords."""

    def __init__(self, patterns: list[str]) -> None:
        super().__init__()
        self._patterns = patterns

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        return pipeline | beam.Create(self._patterns) | beam.io.ReadAllFromTFRecord()
