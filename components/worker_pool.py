"""Beam's worker pool: the process that starts an engine's workers on a machine.

Workers inherit its environment: the Keras that importing `components` has chosen, since what a worker unpickles first may import
TensorFlow; and this Python as `python`, which is the name that Beam starts them by.
"""

import os
import sys
from pathlib import Path

from apache_beam.runners.worker import worker_pool_main

if __name__ == "__main__":
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    worker_pool_main.main(sys.argv)
