"""How a step tells whoever watches how far it is.

The steps do not know who watches: the local runner shows the words beside its progress bar, a container prints them.
"""

import logging

PROGRESS_LOGGER = "ndr.progress"


def progress(words: str, done: float) -> None:
    """Reports progress.

    Args:
        words: what has been reached, in a few words.
        done: the share of the step that is done, 0 to 1.
    """
    logging.getLogger(PROGRESS_LOGGER).info(words, extra={"done": done})
