import components  # noqa: F401  Keras 2 is chosen before any test imports TensorFlow
