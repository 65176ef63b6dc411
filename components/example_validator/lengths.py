"""Compares the lengths of histories: in training, held out, on the previous day, and in served queries.

A model trained on short histories may be served long ones, and no other check of a run would notice.
"""

import json
from dataclasses import asdict, dataclass

from tensorflow_metadata.proto.v0 import statistics_pb2


@dataclass(frozen=True)
class Lengths:
    """The mean lengths of histories, over all examples, including those without history.

    Attributes:
        feature: the history.
        last: its maximum length.
        train: of the training split.
        eval: of the held-out split.
        previous: of the previous span's training split; None without one.
        cautions: a sentence for each that is much longer than training's.
    """

    feature: str
    last: int
    train: float
    eval: float
    previous: float | None
    cautions: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Serialise them for the anomalies artifact."""
        return json.dumps(asdict(self))


def compare(
    feature: str,
    last: int,
    least: float | None,
    train: statistics_pb2.DatasetFeatureStatistics,
    held_out: statistics_pb2.DatasetFeatureStatistics,
    previous: statistics_pb2.DatasetFeatureStatistics | None,
) -> Lengths:
    """Compare the lengths of histories.

    Args:
        feature: the history.
        last: its maximum length.
        least: the minimum mean length in training, as a share of the others; None for no warning.
        train: the statistics of the training split.
        held_out: those of the eval split.
        previous: those of the previous span's training split, if there is one.
    """
    of_train, of_eval = mean_length(train, feature), mean_length(held_out, feature)
    of_previous = None if previous is None else mean_length(previous, feature)
    sentences = []
    if least is not None and of_train < least * of_eval:
        sentences.append(
            f"{feature}: in training histories have {of_train:.1f} items on average, held out {of_eval:.1f}. As served ones are as "
            "long as those, or longer, let more days be read for them (data.history_days, data.window_days)."
        )
    if least is not None and of_previous is not None and of_train < least * of_previous:
        sentences.append(
            f"{feature}: in training histories have {of_train:.1f} items on average, on the span before {of_previous:.1f}. Are the "
            "logs of earlier days still there?"
        )
    return Lengths(feature, last, of_train, of_eval, of_previous, tuple(sentences))


def mean_length(statistics: statistics_pb2.DatasetFeatureStatistics, name: str) -> float:
    """Return the mean number of values of a feature in an example; 0 without examples."""
    for feature in statistics.features:
        if list(feature.path.step) == [name] and statistics.num_examples:
            common = getattr(feature, feature.WhichOneof("stats")).common_stats
            return float(common.tot_num_values / statistics.num_examples)
    return 0.0
