"""The exceptions that a person can cause and mend."""


class UserError(Exception):
    """Something in the user's hands is wrong: the data, the configuration, the arguments, the disk.

    Its text says what was expected, what came, where, and what to do. The command line shows it without a traceback.
    """


class PassingError(UserError):
    """What is wrong may pass by itself: a server that restarts, a root that another run holds. Worth another try later."""
