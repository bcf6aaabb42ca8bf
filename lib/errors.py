"""Errors that are the user's to mend, told in one sentence."""

import errno


class UserError(Exception):
    """Wrong input: one clear sentence and what to do. The command prints it without a traceback and exits 2."""


class RunFailed(Exception):
    """A run stopped for a scientific or technical reason (diverged loss, full disk): exit 1, evidence kept."""


def is_of_the_disk(error: BaseException) -> bool:
    """Whether the disk is full, over quota, read-only or closed to us: every other run would meet that too."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
