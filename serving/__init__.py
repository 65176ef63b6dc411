"""What serves a pushed version, and what asks for it: the embedded server, TF Serving's start, the clients."""

import components  # noqa: F401  # which chooses Keras 2, before anything of TensorFlow is imported
