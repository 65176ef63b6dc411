"""How much is remembered of earlier days for the baselines."""

from pydantic import PositiveFloat, PositiveInt

from schemas.features import Declaration


class CountsSettings(Declaration):
    """What is carried from day to day of items, pairs and users.

    Attributes:
        half_life_days: after how many days an interaction counts half. None: for ever the same.
        pairs_per_item: the most frequent pairs that are kept for each item.
        items_per_user: the newest items that are kept for each user.
        user_days: a user without an interaction for longer is forgotten.
    """

    half_life_days: PositiveFloat | None = 90.0
    pairs_per_item: PositiveInt = 800
    items_per_user: PositiveInt = 500
    user_days: PositiveInt = 400
