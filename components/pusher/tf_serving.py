"""What TF Serving is started with: the models of a push folder, and how it batches.

Both are text protos: `ModelServerConfig` for --model_config_file, `BatchingParameters` for --batching_parameters_file.
"""

from collections.abc import Iterable

KEPT_VERSIONS = 2  # the live one and the one before it, which clients may still name
MAX_BATCH_ROWS = 64
BATCH_TIMEOUT_MICROS = 1000
# A client of ours asks again only once it was answered, so a longer queue is that of a server which cannot keep up, and says so.
MAX_ENQUEUED_BATCHES = 100


def model_config(push_folder: str, models: Iterable[str]) -> str:
    """The model configuration file.

    Args:
        push_folder: its absolute path, as TF Serving sees it.
        models: the parts that are served, each a folder below it.
    """
    entries = (
        "  config {\n"
        f"    name: {_quoted(model)}\n"
        f"    base_path: {_quoted(f'{push_folder}/{model}')}\n"
        '    model_platform: "tensorflow"\n'
        f"    model_version_policy {{ latest {{ num_versions: {KEPT_VERSIONS} }} }}\n"
        "  }\n"
        for model in models
    )
    return "model_config_list {\n" + "".join(entries) + "}\n"


def batching_parameters() -> str:
    """The batching parameters file.

    Inputs of different lengths are not padded: TF Serving pads with a tensor's first value, which would lengthen a history by
    items that were never seen. Clients whose inputs vary in length ask `serving_examples`, whose inputs do not.
    """
    return (
        f"max_batch_size {{ value: {MAX_BATCH_ROWS} }}\n"
        f"batch_timeout_micros {{ value: {BATCH_TIMEOUT_MICROS} }}\n"
        f"max_enqueued_batches {{ value: {MAX_ENQUEUED_BATCHES} }}\n"
        "pad_variable_length_inputs: false\n"
    )


def _quoted(text: str) -> str:
    """A text proto's string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
