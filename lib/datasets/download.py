"""`regen data fetch`: the only code of the project that downloads data or weights, and only when asked."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from lib.datasets import loading, registry
from lib.datasets.registry import RegisteredFile
from lib.errors import UserError

SECONDS_BETWEEN_LINES = 5.0
TIMEOUT = 30.0  # seconds without a byte


class Transfer:
    """What pooch takes for a progress bar: a bar on a terminal, elsewhere a line every few seconds."""

    def __init__(self, name: str, total: int, quiet: bool) -> None:
        self.name, self.total, self.done = name, total, 0
        self.lines = not quiet and not sys.stderr.isatty()
        self.next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        self.bar = tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=quiet or self.lines, leave=False)

    def update(self, count: int) -> None:
        self.done += count
        self.bar.update(count)
        if self.lines and time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            print(f"{self.name}: {self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB", file=sys.stderr, flush=True)

    def reset(self) -> None:
        self.done = 0
        self.bar.reset(self.bar.total)

    def close(self) -> None:
        self.bar.close()


def fetch(name: str, data_dir: Path | None = None, progress: bool = True) -> list[Path]:
    """Get a data set into the data root and check it; returns its files, or [] for one that a wheel brings.

    Every file is written aside, checked by SHA-256 and only then renamed into place. What is there and sound is kept.
    """
    entry, root = registry.entry(name), registry.data_root(data_dir)
    try:
        files = loading.read(entry, root)[1]
    except UserError:
        if entry.wheel or not entry.pinned:
            raise  # its sentence names the pip command, or the place to get it by hand
    else:
        return [] if entry.wheel else files
    require_online(name, [root / file.path for file in entry.files])
    for file in entry.files:
        fetch_file(name, file, root, [mirror + Path(file.path).name for mirror in entry.mirrors], progress)
    return loading.read(entry, root)[1]  # says so if an older, broken file is still in the way


def require_online(name: str, targets: Sequence[Path]) -> None:
    """Raises UserError, naming the files to put there by hand, where REGEN_OFFLINE forbids downloads."""
    if registry.offline():
        raise UserError(
            f"REGEN_OFFLINE forbids downloads, so {name} was not fetched: unset it, or put"
            f" {', '.join(map(str, targets))} there by hand."
        )


def fetch_file(name: str, file: RegisteredFile, root: Path, urls: Sequence[str], progress: bool) -> None:
    """From the first address that gives the right bytes. A transfer that breaks off is begun again once."""
    target = root / file.path
    failures = []
    for url in urls:
        for _ in range(2):
            reason, broken_off = _attempt(url, target, file, progress)
            if reason is None:
                return
            if not broken_off:
                break
        failures.append(f"{url.rpartition('/')[0]}/ ({reason})")
    raise UserError(
        f"{target.name} of {name} could not be fetched from {', '.join(failures)}."
        f" Try again later, or get it elsewhere and put it at {target}."
    )


def _attempt(url: str, target: Path, file: RegisteredFile, progress: bool) -> tuple[str | None, bool]:
    """One transfer: why it failed, None if it did not; and whether it had begun and broke off."""
    try:
        import pooch
        from requests import exceptions
    except ImportError:
        raise UserError("Downloads need the package pooch: run `pip install pooch`, or copy the files here.") from None

    pooch.get_logger().setLevel("WARNING")  # at INFO it says what our progress line says
    transfer = Transfer(target.name, file.bytes, quiet=not progress)
    downloader = pooch.HTTPDownloader(
        progressbar=transfer,
        chunk_size=1 << 16,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},  # or a server's own gzip would be undone, and the .gz with it
    )
    try:
        pooch.retrieve(url, f"sha256:{file.sha256}", fname=target.name, path=target.parent, downloader=downloader)
    except exceptions.HTTPError as error:
        return "no answer" if error.response is None else f"HTTP {error.response.status_code}", False
    except exceptions.ChunkedEncodingError:
        return "the transfer broke off", True
    except exceptions.Timeout:
        return f"no answer in {TIMEOUT:.0f} s", False
    except exceptions.ConnectionError:
        return "no connection", transfer.done > 0
    except exceptions.RequestException as error:
        return type(error).__name__, False
    except ValueError:
        return "the bytes have another SHA-256", False
    except OSError as error:
        raise UserError(
            f"{target} could not be written: {error.strerror}. Free the disk or choose another REGEN_DATA."
        ) from None
    finally:
        transfer.close()
    return None, False
