"""How much of the catalogue a refresh may change."""

from pydantic import Field

from schemas.declaration import Declaration


class RefreshSettings(Declaration):
    """A new catalogue for the live version, between two days.

    Attributes:
        most_changed: a refresh that would add, change and remove more than this share of the live version's items is refused: a
            catalogue that was cut off, or written in another form, looks like that. 1 and more refuses less, or nothing.
    """

    most_changed: float = Field(default=0.2, gt=0.0)
