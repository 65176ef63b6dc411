"""How much the baselines remember of earlier days."""

from pydantic import PositiveFloat, PositiveInt

from schemas.declaration import Declaration


class CountsSettings(Declaration):
    """The counts of items, pairs and users that are carried from day to day.

    Attributes:
        half_life_days: after this many days an interaction counts half. None: no decay.
        pairs_per_item: the number of pairs kept for each item, the most frequent.
        items_per_user: the number of items kept for each user, the newest.
        user_days: a user without interactions for longer is forgotten.
    """

    half_life_days: PositiveFloat | None = 90.0
    pairs_per_item: PositiveInt = 800
    items_per_user: PositiveInt = 500
    user_days: PositiveInt = 400
