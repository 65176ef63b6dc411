"""Everything that measures. Each module is a command: `python -m benchmarks.NAME --json FILE`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # the terminal is for the figures

import components

assert components  # which chooses Keras 2 before any benchmark imports TensorFlow
