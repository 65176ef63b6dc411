"""What ML Metadata keeps of how a day judged earlier models. TFX is not imported."""

import json
from dataclasses import asdict, dataclass

JUDGEMENT_PROPERTY = "judgement"


@dataclass(frozen=True)
class Judgement:
    """Which models were judged, and by how much.

    Attributes:
        model: the id of the model judged; 0 where there was none.
        model_span: the day that it was last trained on, in days since 1970-01-01.
        earlier_model: the id of the model before it; 0 where there was none.
        earlier_span: the day that this was last trained on.
        interactions: the day's interactions with a reward above 0.
        ranked: those of them that were ranked.
        not_in_catalogue: those that were left out, as the catalogue does not have their item.
        reason: why there are no figures; empty where there are.
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
        """All of it, for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Judgement":
        """What `to_json` wrote."""
        return cls(**json.loads(text))
