"""Errors that are the user's to mend, told in one sentence."""


class UserError(Exception):
    """Wrong input: one clear sentence and what to do. The command prints it without a traceback and exits 2."""


class RunFailed(Exception):
    """A run stopped for a scientific or technical reason (diverged loss, full disk): exit 1, evidence kept."""
