"""What the Trainer's step is told, as text: the chief has it from TFX, the other processes of the training from the chief."""

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
    """What training reads of TFX's arguments."""
    return json.dumps({name: getattr(fn_args, name) for name in FIELDS})


def from_json(text: str) -> FnArgs:
    """The arguments that `to_json` was given, as far as training reads them."""
    fn_args = FnArgs()
    for name, value in json.loads(text).items():
        setattr(fn_args, name, value)
    return fn_args
