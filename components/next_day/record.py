"""ML Metadata's record of a day's evaluation of earlier models. Does not import TFX."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Judgement:
    """The evaluated models, and the numbers of interactions.

    Attributes:
        model: the id of the evaluated model; 0 if there was none.
        model_span: the last day in its training data, in days since 1970-01-01.
        earlier_model: the id of the model before it; 0 if there was none.
        earlier_span: the last day in that one's training data.
        interactions: the day's interactions with a reward above 0.
        ranked: the number of them that were ranked.
        not_in_catalogue: the number left out because the catalogue lacks their item.
        reason: why there are no figures; empty if there are.
    """

    model: int = 0
    model_span: int = 0
    earlier_model: int = 0
    earlier_span: int = 0
    interactions: int = 0
    ranked: int = 0
    not_in_catalogue: int = 0
    reason: str = ""

    def to_json(self) -> str:
        """Serialise it for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Judgement":
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))
