"""The step that compares a new catalogue with that of the live version, and stops a refresh that would change too much."""

import json
import math
from dataclasses import asdict
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts

from components import recorded
from components.artifacts import CatalogueChanges, split_patterns
from components.example_gen.split_names import BLOCKED_SPLIT, CATALOGUE_SPLIT
from components.refresh.changes import Changes, compare, count_differing
from components.refresh.settings import RefreshSettings
from schemas.errors import UserError


class ChangesSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the CatalogueComparison."""

    PARAMETERS = {"settings": component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        "catalogue": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "base_catalogue": component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {"changes": component_spec.ChannelParameter(type=CatalogueChanges)}


class ChangesExecutor(base_executor.BaseExecutor):
    """Compares, in one process: reading both catalogues takes microseconds an item."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Run the step; TFX calls it.

        Raises:
            UserError: more has changed than may.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        output = artifact_utils.get_single_instance(output_dict["changes"])
        earlier, newer = (
            artifact_utils.get_single_instance(input_dict[key]) for key in ("base_catalogue", "catalogue")
        )
        found = compare(split_patterns(earlier, CATALOGUE_SPLIT), split_patterns(newer, CATALOGUE_SPLIT), output.uri)
        others = count_differing(split_patterns(earlier, BLOCKED_SPLIT), split_patterns(newer, BLOCKED_SPLIT))
        found = Changes(**{**asdict(found), "others": others})
        _check(found, RefreshSettings.model_validate_json(exec_properties["settings"]).most_changed)
        output.set_string_custom_property(recorded.CHANGES, json.dumps(asdict(found)))


class CatalogueComparison(base_component.BaseComponent):
    """What a new catalogue changes.

    Args:
        catalogue: the new one.
        base_catalogue: that of the version that is refreshed.
        settings: how much may change.

    Output `changes`: see `components.refresh.changes`; its property `changes` is `Changes` as JSON.
    """

    SPEC_CLASS = ChangesSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ChangesExecutor)

    def __init__(
        self, catalogue: types.BaseChannel, base_catalogue: types.BaseChannel, settings: RefreshSettings
    ) -> None:
        super().__init__(
            ChangesSpec(
                catalogue=catalogue,
                base_catalogue=base_catalogue,
                settings=settings.model_dump_json(),
                changes=types.Channel(type=CatalogueChanges),
            )
        )


def _check(found: Changes, most: float) -> None:
    if not found.items:
        raise UserError("The new catalogue has no item that may be retrieved. Nothing was pushed.")
    if found.share > most:
        raise UserError(
            f"The new catalogue would add {found.new:,}, change {found.changed:,} and remove {found.gone:,} of the live version's "
            f"{found.before:,} items: {found.share:.1%}, and refresh.most_changed allows {most:.1%}. Nothing was pushed. Look at "
            f"the catalogue; where it is right, allow it this once: --set refresh.most_changed={math.ceil(100 * found.share) / 100}"
        )
