"""Errors that the user can cause and fix."""


class UserError(Exception):
    """A fault that the user can fix: in the data, the configuration, the arguments, or the machine.

    Its text says what was expected, what came, where, and what to do. The command line shows it without a traceback.
    """


class PassingError(UserError):
    """A fault that may pass by itself, such as a restarting server or a root locked by another run. Retry later."""
