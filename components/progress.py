"""Reports the progress of a step.

A step does not know the receiver: the local runner shows the message beside its progress bar, a container prints it.
"""

import logging

PROGRESS_LOGGER = "ndr.progress"


def progress(words: str, done: float) -> None:
    """Report progress.

    Args:
        words: a short message.
        done: the completed share of the step, 0 to 1.
    """
    logging.getLogger(PROGRESS_LOGGER).info(words, extra={"done": done})
