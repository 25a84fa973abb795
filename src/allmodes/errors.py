"""The library's own exceptions: each message says what was wrong, with the value, and what to
do.
"""


class AllmodesError(Exception):
    """Base class: catch this to catch everything that the library raises on purpose."""


class TargetError(AllmodesError, ValueError):
    """The density cannot be used as given: not traceable, wrong shape, no finite value, unknown
    name.
    """


class ConfigError(AllmodesError, ValueError):
    """A setting is out of range, unknown, or contradicts another."""


class RunError(AllmodesError, RuntimeError):
    """A run folder is missing, damaged, unwritable, or belongs to another configuration."""


class JobError(AllmodesError, RuntimeError):
    """Processes that should work together cannot find each other, or one of them has gone."""


class SolverError(AllmodesError, RuntimeError):
    """A differential equation could not be solved to the tolerances that were asked for."""


class RunWarning(UserWarning):
    """A run folder is not as it was left, and what was done about it."""


class PriorWarning(UserWarning):
    """A prior is improper: log Z depends on an arbitrary constant, and is no evidence."""
