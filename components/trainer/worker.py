"""The processes of a training other than the Trainer's step itself: `python -m components.trainer.worker`.

TF_CONFIG tells each process its role; `deploy/base/trainer` sets it in the pods of a JobSet. The chief is the Trainer's step.
Under `multi_worker_mirrored` a worker waits for the chief, receives the arguments from it, takes every step with it, and ends when
it ends. Under `parameter_server`, where TF_CONFIG names servers (`ps`), workers and servers do what the chief asks, until they are
ended from outside.

If a process fails, a `multi_worker_mirrored` training fails with it: all end with status 75, and once all are restarted they
resume from the last checkpoint. A worker of parameter servers may fail and restart; a server may not.

    status  meaning                                                   what to do
    0       the training is done
    1       the configuration or TF_CONFIG is invalid                 fix it; retrying will not help
    75      another process of the training went away                 start it again, and the others
"""

import argparse
import os
import sys

from schemas.errors import UserError
from schemas.visible import visible


def main() -> None:
    """Run the command line."""
    argparse.ArgumentParser(
        prog="python -m components.trainer.worker",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    try:
        _work()
    except UserError as error:
        sys.stderr.write(f"{visible(str(error))}\n")
        sys.exit(error.status)


def _work() -> None:
    from components.trainer import strategies

    task = strategies.task_of(os.environ.get(strategies.TF_CONFIG, ""))
    if "ps" in task["cluster"]:
        _serve()
    elif strategies.is_chief(task):
        raise UserError(
            "TF_CONFIG: this process is the chief, which is the Trainer's step: python -m pipeline.run_node."
        )
    else:
        _follow()


def _serve() -> None:
    """Serve a coordinator; does not return."""
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")  # lets requests wait for a restarting peer
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    server = tf.distribute.Server(
        resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id, protocol="grpc", start=True
    )
    server.join()


def _follow() -> None:
    """Train with the chief."""
    from components.trainer import arguments, strategies
    from components.trainer.run import going_away_told, train_and_export
    from components.trainer.settings import StrategySettings

    with going_away_told():
        devices = strategies.make(StrategySettings(kind="multi_worker_mirrored"))
        train_and_export(arguments.from_json(devices.hand_over("a worker")), devices)


if __name__ == "__main__":
    main()
