"""Early stopping: ranks the held-out interactions after every epoch, and keeps the best epoch's model.

Training that is killed and called again ends like an undisturbed one: an epoch's recall is in the same checkpoint as the state
after it, and the best epoch's state is on disk before that checkpoint names it.
"""

import os

import numpy as np
import tensorflow as tf
from tfx.dsl.io import fileio

from components.trainer.held_out import HeldOut
from components.trainer.model import TwoTowerModel
from components.trainer.settings import EarlyStoppingSettings
from components.trainer.state import TrainingState

NOT_MEASURED = -1.0
BEST = "best-"


class EarlyStopping:
    """The recalls of the epochs so far, and the decision to stop.

    Args:
        settings: the patience.
        held_out: measures a model.
        epochs: the maximum number of epochs.

    Attributes:
        recalls: [epochs] float64, NOT_MEASURED for future epochs; saved in checkpoints.
    """

    def __init__(self, settings: EarlyStoppingSettings, held_out: HeldOut, epochs: int) -> None:
        self.recalls = tf.Variable(tf.fill([epochs], tf.constant(NOT_MEASURED, tf.float64)))
        self._settings = settings
        self._held_out = held_out

    def judge(self, model: TwoTowerModel, state: TrainingState, epoch: int, folder: str) -> float:
        """Measure the model after an epoch, and keep its state if it is the best so far; return the recall."""
        recall = float(self._held_out.hits(model, self._settings.recall_at).mean())
        self.recalls.scatter_update(tf.IndexedSlices(tf.constant(recall, tf.float64), epoch))
        if self._best == epoch:
            state.checkpoint.write(os.path.join(folder, f"{BEST}{epoch}"))
        return recall

    def forget_others(self, folder: str) -> None:
        """Remove the states of epochs that are no longer the best, once a checkpoint says so."""
        for name in fileio.listdir(folder):
            if name.startswith(BEST) and name.partition(".")[0] != f"{BEST}{self._best}":
                fileio.remove(os.path.join(folder, name))

    @property
    def is_over(self) -> bool:
        """Whether none of the last epochs was better than the best before."""
        return self.epochs > 0 and self.epochs - 1 - self._best >= self._settings.patience

    @property
    def epochs(self) -> int:
        """The number of completed epochs."""
        return int((self.recalls.numpy() != NOT_MEASURED).sum())

    def restore_best(self, state: TrainingState, folder: str) -> None:
        """Restore the state of the best epoch."""
        state.checkpoint.read(os.path.join(folder, f"{BEST}{self._best}")).assert_consumed()

    @property
    def _best(self) -> int:
        return int(np.argmax(self.recalls.numpy()))  # the first of equals
