"""Log files that only their owner may read: queries are personal data."""

import os
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from typing import cast

PRIVATE_FILE = 0o600


class PrivateRotatingFileHandler(RotatingFileHandler):
    """Makes each file with the rights that it needs, those that come after a rotation too."""

    def _open(self) -> TextIOWrapper:
        """Override of logging's method."""
        file = open(  # noqa: SIM115  # it is closed by logging
            self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors,
            opener=lambda path, flags: os.open(path, flags, PRIVATE_FILE),
        )  # fmt: skip
        return cast(TextIOWrapper, file)
