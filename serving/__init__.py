"""Serves pushed versions: the embedded server, and the start of TF Serving."""

import components  # noqa: F401  # which chooses Keras 2, before anything of TensorFlow is imported
