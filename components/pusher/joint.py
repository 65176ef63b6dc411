"""TFX's Pusher, made to push all parts of a blessed model under one version."""

import json
from datetime import date
from typing import Any

from tfx import types
from tfx import v1 as tfx
from tfx.components.pusher import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import json_utils, proto_utils

from components.pusher.versions import PushFolder

DAY_KEY = "day"
PARTS_PROPERTY = "parts"


class JointExecutor(executor.Executor):
    """Pushes the towers of a blessed model to the push folder; records a model that is not blessed as not pushed."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        destination = tfx.proto.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        folder = PushFolder(destination.filesystem.base_directory)
        folder.recover()  # whether or not there is something new to push
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        custom_config = json_utils.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        run = str(self._context.pipeline_run_id) if self._context else ""
        manifest = folder.push(self.GetModelPath(input_dict), date.fromisoformat(custom_config[DAY_KEY]), run)
        pushed.set_string_custom_property(PARTS_PROPERTY, json.dumps(folder.places(manifest), sort_keys=True))
        self._MarkPushed(pushed, pushed_destination=str(folder.root), pushed_version=str(manifest.version))


class JointPusher(tfx.components.Pusher):
    """TFX's Pusher with the executor above; `custom_config` names the `day`."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(JointExecutor)
