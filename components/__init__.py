"""The steps of the pipeline, one package each, named as TFX names them, in the order the data flows.

TFRS, TFT and TFX need Keras 2. TensorFlow uses Keras 3 unless told otherwise before its first use, so the choice is made here,
in the package through which all code that uses TensorFlow is imported.
"""

import os
import sys

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

if os.environ["TF_USE_LEGACY_KERAS"] not in ("1", "true", "True"):
    raise RuntimeError(
        f"expected TF_USE_LEGACY_KERAS=1, received {os.environ['TF_USE_LEGACY_KERAS']!r}: TFRS and TensorFlow "
        "Transform need Keras 2 (tf_keras). Unset the variable."
    )
_tensorflow = sys.modules.get("tensorflow")
if _tensorflow is not None and not _tensorflow.keras.Model.__module__.startswith("tf_keras"):
    raise RuntimeError(
        "TensorFlow was given Keras 3 before this package was imported, and TFRS and TensorFlow Transform need Keras 2 "
        "(tf_keras). Import `components` first, or set TF_USE_LEGACY_KERAS=1 in the environment."
    )
