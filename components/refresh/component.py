"""The step that compares a new catalogue with that of the live version, and stops a refresh that would change too much."""

import json
import math
from dataclasses import asdict, replace

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts

from components import recorded
from components.artifacts import CatalogueChanges, split_patterns
from components.example_gen.split_names import BLOCKED_SPLIT, CATALOGUE_SPLIT
from components.refresh.changes import Changes, compare, count_differing
from components.refresh.settings import RefreshSettings
from schemas.errors import UserError


@component
def CatalogueComparison(
    catalogue: InputArtifact[standard_artifacts.Examples],
    base_catalogue: InputArtifact[standard_artifacts.Examples],
    changes: OutputArtifact[CatalogueChanges],
    settings: Parameter[str],
) -> None:
    """Compare in one process: reading both catalogues takes microseconds an item.

    Args:
        catalogue: the new one.
        base_catalogue: that of the version that is refreshed.
        changes: the output; see `components.refresh.changes`. Its property `changes` is `Changes` as JSON.
        settings: `RefreshSettings` as JSON: how much may change.

    Raises:
        UserError: more has changed than may.
    """
    items, others = (
        (split_patterns(base_catalogue, split), split_patterns(catalogue, split))
        for split in (CATALOGUE_SPLIT, BLOCKED_SPLIT)
    )
    tally = replace(compare(*items, changes.uri), others=count_differing(*others))
    _check(tally, RefreshSettings.model_validate_json(settings).most_changed)
    changes.set_string_custom_property(recorded.CHANGES, json.dumps(asdict(tally)))


def _check(tally: Changes, most: float) -> None:
    if not tally.items:
        raise UserError("The new catalogue has no item that may be retrieved. Nothing was pushed.")
    if tally.share > most:
        raise UserError(
            f"The new catalogue would add {tally.new:,}, change {tally.changed:,} and remove {tally.gone:,} of the live version's "
            f"{tally.before:,} items: {tally.share:.1%}, and refresh.most_changed allows {most:.1%}. Nothing was pushed. Look at "
            f"the catalogue; where it is right, allow it this once: --set refresh.most_changed={math.ceil(100 * tally.share) / 100}"
        )
