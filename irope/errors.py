"""The root of every error that is the user's to mend: the command line prints its message alone and exits with 2."""


class UserError(Exception):
    """What is wrong, where (configuration key, file, line), the nearest valid value, and what to run."""


class WeightsError(UserError, ValueError):
    """Weights are missing, unreadable, or made for another model."""
