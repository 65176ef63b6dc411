"""The source of a secret, which is never part of a configuration."""

import os
from pathlib import Path
from typing import Self

from pydantic import model_validator

from schemas.declaration import Declaration
from schemas.errors import UserError


class SecretSource(Declaration):
    """Where a password or a token comes from: `env` or `file`.

    Attributes:
        env: an environment variable that holds it.
        file: a file with the secret in its first line, such as a mounted one.
    """

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("expected one of env, the name of an environment variable, and file, the path of a file")
        return self

    def read(self, key: str) -> str:
        """Read the secret.

        Args:
            key: that of this source in the configuration, for messages.

        Raises:
            UserError: it is missing or empty.
        """
        # Neither name is shown: it may be the secret itself, put in the wrong place.
        if self.env is not None:
            secret, source = os.environ.get(self.env, ""), f"the environment variable that {key}.env names"
        else:
            source = f"the file that {key}.file names"
            try:
                secret = (self.file or Path()).read_text(encoding="utf-8").partition("\n")[0]
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
                raise UserError(f"{key}: {source} cannot be read: {reason}.") from error
        if not secret:
            raise UserError(f"{key}: expected a password or a token in {source}, found nothing.")
        return secret
