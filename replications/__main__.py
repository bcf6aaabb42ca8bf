"""`regen`, or `python -m replications`: runs the command and turns every expected error into one sentence."""

import errno
import signal
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - who runs this from a checkout has no installer to refuse
    found = sys.version.split()[0]
    print("regen: Python 3.11 or newer is needed, this is " + found + ": `make` finds one.", file=sys.stderr)
    sys.exit(2)

from lib.errors import RunFailed, UserError, is_of_the_disk

STOPPED = "Stopped. The same command goes on from the last checkpoints."


def main(*first: str) -> None:
    """Exit codes: 0 done, 1 something failed or fell short, 2 the input was wrong, 130 stopped by Ctrl-C or SIGTERM.

    first: arguments before those of the command line.
    """
    # What Slurm, Kubernetes and a cancelled CI job send first: else the workers would outlive the command for a while.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from replications.command import app

        app([*first, *sys.argv[1:]])
    except UserError as error:
        sys.exit(_say(error, 2))
    except RunFailed as error:
        sys.exit(_say(error, 1))
    except MemoryError:
        sys.exit(_say("There is not enough memory; where there is more, the same command goes on.", 1))
    except KeyboardInterrupt:
        sys.exit(_stopped())
    except SystemExit as exit:
        if exit.code == 130:  # typer has caught the interrupt before us
            _stopped()
        raise
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG):
            sys.exit(_say(f"{error.strerror}: {error.filename}. Give another path.", 2))
        if not is_of_the_disk(error):
            raise
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(_say(f"{error.strerror}{where}: make room or choose another --out; the same command then goes on.", 1))


def _stopped() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # once is enough: another would end in a traceback
    return _say(STOPPED, 130)


def _say(what: object, code: int) -> int:
    print(f"regen: {what}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
