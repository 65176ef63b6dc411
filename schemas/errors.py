"""Errors that the user can cause and fix, and the exit statuses of all commands."""

from enum import IntEnum
from typing import ClassVar


class Status(IntEnum):
    """The exit status of a command. 1 and 2 (an invalid argument), 65 and 70 stay when the command is repeated; 75 may pass."""

    DONE = 0
    USER_FAULT = 1
    DATA_FAULT = 65
    INTERNAL_FAULT = 70
    PASSING_FAULT = 75
    INTERRUPTED = 130
    TERMINATED = 143


class UserError(Exception):
    """A fault that the user can fix: in the data, the configuration, the arguments, or the machine.

    Its text says what was expected, what came, where, and what to do. The command line shows it without a traceback.

    Attributes:
        status: the exit status of a step or a worker that ends with it. The command `ndr` itself ends with 1.
    """

    status: ClassVar[Status] = Status.USER_FAULT


class PassingError(UserError):
    """A fault that may pass by itself, such as a restarting server or a root locked by another run. Retry later."""

    status = Status.PASSING_FAULT


class DataError(UserError):
    """A step rejected its input."""

    status = Status.DATA_FAULT
