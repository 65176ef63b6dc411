"""The Trainer step's arguments as text: TFX gives them to the chief, and the chief to the other processes of the training."""

import json

from tfx.components.trainer.fn_args_utils import FnArgs

FIELDS = (
    "train_files",
    "num_examples",
    "transform_output",
    "base_model",
    "serving_model_dir",
    "model_run_dir",
    "custom_config",
)


def to_json(fn_args: FnArgs) -> str:
    """Serialise the arguments that training reads from TFX's."""
    return json.dumps({name: getattr(fn_args, name) for name in FIELDS})


def from_json(text: str) -> FnArgs:
    """Restore the arguments that `to_json` serialised."""
    fn_args = FnArgs()
    for name, value in json.loads(text).items():
        setattr(fn_args, name, value)
    return fn_args
