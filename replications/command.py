"""The `regen` command: what each verb takes, says and returns. 0 done, 1 failed or fell short, 2 wrong input."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lib.errors import UserError
from lib.files import shown
from replications.data_command import data_app
from replications.places import LATEST, PUBLISHED, known

if TYPE_CHECKING:  # PyTorch takes seconds to import: each verb imports what it needs, and `--help` nothing of it
    from lib.execution.execute import Report
    from lib.execution.runs import Run, Store

app = typer.Typer(
    help="Replications of the classic generative-model papers: runs, numbers, verdicts, reports.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")

Papers = Annotated[list[str] | None, typer.Argument(metavar="[PAPER]...", help="Keys such as vae2013; all if none.")]
Preset = Annotated[str, typer.Option(help="smoke, laptop, paper, or another that `regen list` shows.")]
Seeds = Annotated[int | None, typer.Option(help="How many seeds, 0 upward (default: 1 for smoke, else 3).")]
Out = Annotated[Path, typer.Option("--out", help="Folder of runs and reports.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda; for a report also none, to compute nothing.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes of one thread each (default: one a core).")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a dask scheduler, tcp://host:port.")]
Memory = Annotated[str | None, typer.Option("--memory-limit", help="Of each worker, as 4GB (default: a share of all).")]
Budget = Annotated[str | None, typer.Option("--time-budget", help="Stop after this long, as 90s, 9m or 1.5h.")]
Experiments = Annotated[
    list[str] | None, typer.Option("--experiment", help="Only these, as ring-* (may be given several times).")
]
Json = Annotated[bool, typer.Option("--json", help="For machines: JSON on standard output.")]


@app.command(name="list")
def list_papers(as_json: Json = False, out: Out = LATEST) -> None:
    """Papers, presets, and what is already computed."""
    from replications import papers

    store, listing = papers.open_store(out), []
    for key in known():
        paper = papers.load(key)
        presets = {
            preset: [_listed(run, store) for run in papers.plan(key, preset)] for preset in paper.package.PRESETS
        }
        listing.append({"paper": key, "title": paper.document["title"], "presets": presets})
    if as_json:
        print(json.dumps(listing, indent=2))
        return
    for entry in listing:
        print(f"{entry['paper']}: {entry['title']}")
        for preset, runs in entry["presets"].items():
            states = [run["state"] for run in runs]
            told = ", ".join(
                f"{states.count(s)} {s}" for s in ("finished", "failed", "begun", "damaged") if s in states
            )
            print(f"  {preset:8} {len(runs):3} runs: {told or 'none computed'}")


def _listed(run: "Run", store: "Store") -> dict[str, Any]:
    state = store.state(run)
    seconds = None
    if state in ("finished", "failed"):
        seconds = json.loads((store.folder(run) / "run.json").read_text())["wall_seconds"]
    return {
        "experiment": run.experiment,
        "seed": run.seed,
        "fingerprint": run.fingerprint,
        "state": state,
        "seconds": seconds,
    }


@app.command(name="run")
def run_papers(
    keys: Papers = None,
    preset: Preset = "laptop",
    seeds: Seeds = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    memory_limit: Memory = None,
    device: Device = "auto",
    time_budget: Budget = None,
    experiment: Experiments = None,
    out: Out = LATEST,
) -> None:
    """Compute the runs of a preset that are not there yet; a stopped run goes on from its checkpoint."""
    from replications import papers

    if device == "none":
        raise UserError(
            "Runs need a device: take --device cpu, cuda or auto. `regen report --device none` computes none."
        )
    deadline = papers.deadline_after(time_budget)
    cluster = {"workers": workers, "scheduler": scheduler, "memory_limit": memory_limit}
    reports = _compute(_chosen(keys), preset, seeds, cluster, device, deadline, out, experiment)
    raise typer.Exit(_say_endings(reports))


@app.command(name="report")
def report_papers(
    keys: Papers = None,
    preset: Preset = "laptop",
    seeds: Seeds = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    memory_limit: Memory = None,
    device: Device = "auto",
    parameter: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the notebook.")] = None,
    timeout: Annotated[float | None, typer.Option(min=1, help="Seconds a notebook may take (default 600).")] = None,
    out: Out = LATEST,
) -> None:
    """Compute what is missing, execute the notebooks, write HTML; prints the path of the index."""
    from replications import papers, reports, site

    chosen = _chosen(keys)
    extra = {key: reports.declared_values(key, parameter or []) for key in chosen}
    for values in extra.values():  # a parameter that names what an option names wins, for the runs as for the notebook
        preset, seeds, device = (
            values.pop(n, d) for n, d in (("preset", preset), ("seeds", seeds), ("device", device))
        )
    for key in chosen:
        papers.plan(key, preset, seeds)  # a preset or a number that is wrong is told before anything is done
    reports.require_packages()
    _require_writable(out, computed=True)
    cluster = {"workers": workers, "scheduler": scheduler, "memory_limit": memory_limit}
    computed = [] if device == "none" else _compute(chosen, preset, seeds, cluster, device, None, out)
    code = _say_endings(computed) if computed else 0
    count = papers.default_seeds(preset) if seeds is None else seeds
    at_once = workers or os.cpu_count() or 1
    where = papers.resolve_device("auto" if scheduler else device)  # the device that was asked for is the workers'
    for key, built in reports.build_all(chosen, preset, count, out, where, extra, timeout, at_once):
        print(f"{key}: {shown(built.page)}" + (" (partial)" if built.reason else ""))
        if built.reason:
            _complain(f"The notebook failed in {built.reason}. The page shows what came before.")
            code = 1
    if preset != "smoke":  # what smoke computes means nothing, and there is nothing to put side by side
        built = reports.build_summary(preset, count, out, timeout)
        if built.reason:
            _complain(f"The notebook failed in {built.reason}.")
            code = 1
    print(f"Open {shown(site.write_site(out))}")
    raise typer.Exit(code)


@app.command()
def verdicts(
    keys: Papers = None, preset: Preset = "laptop", seeds: Seeds = None, as_json: Json = False, out: Out = LATEST
) -> None:
    """The claims table, and the scores beside the published ones; exit 1 if a verdict fell or a score drifted.

    On another kind of machine, a verdict that fell by chance while its scores stayed in their bands is told and not
    counted.
    """
    from lib.claims import counts, fallen
    from replications import drift, papers, reports

    found, before, compared, computed = [], [], [], 0
    for key in _chosen(keys):
        results = papers.read(key, preset, seeds, out)
        computed += sum(outcome is not None for _, outcome in results.outcomes)
        found += results.verdicts()
        compared += drift.with_published(results, PUBLISHED)
        before += reports.read_verdicts(PUBLISHED / preset / f"{key}.verdicts.json")
    if as_json:
        print(reports.verdicts_json(found), end="")
    else:
        for v in found:
            print(
                f"{v.paper}/{v.claim}: {v.verdict.upper()}. Reported {v.reported}; measured {v.measured or 'nothing'}."
            )
            print(f"    {v.why}")
        print(", ".join(f"{count} {word}" for word, count in counts(found).items()))
        print(drift.summary(compared, preset))
    if not computed:
        _complain(f"Nothing of the preset {preset} is computed in {shown(out)}: `regen run` does it, or give --out.")
        raise typer.Exit(1)
    complaints, notes = drift.complaints(fallen(found, before), compared)
    for sentence in [*notes, *complaints]:
        _complain(sentence)
    raise typer.Exit(1 if complaints else 0)


@app.command()
def publish(
    keys: Papers = None,
    preset: Preset = "laptop",
    weights: Annotated[bool, typer.Option("--weights", help="Take the runs' weights along.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Although some runs of the preset are missing.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Make published pages anew from published runs; computes nothing.")
    ] = False,
    out: Out = LATEST,
) -> None:
    """Promote finished runs, figures and HTML from reports/latest to reports/published, and make its site."""
    from replications import papers, publishing

    chosen = _chosen(keys)
    if preset == "smoke":
        raise UserError("What smoke computes means nothing and is not published: take --preset laptop or paper.")
    if again and keys is None:
        chosen = [key for key in chosen if (PUBLISHED / preset / f"{key}.report.json").exists()]
        if not chosen:
            raise UserError(f"No report is published at the preset {preset!r}: `regen publish` does it.")
    for key in chosen:
        papers.plan(key, preset)
    for key in chosen:
        if again:
            written = publishing.publish_again(key, preset)
        else:
            written = publishing.publish(key, preset, out, weights=weights, partial=partial)
        size = sum(path.stat().st_size for path in written)
        print(f"{key}: {len(written)} files, {size / 1e6:.1f} MB, in {shown(PUBLISHED)}")
    print(f"Open {shown(publishing.publish_site()[0])}")


@app.command()
def cite(
    identifier: Annotated[str | None, typer.Argument(metavar="[ID]", help="Such as vae2013/figure-2.")] = None,
    preset: Annotated[str | None, typer.Option(help="Only what is published at this preset (default: all).")] = None,
    verify: Annotated[Path | None, typer.Option(metavar="FILE", help="Whether FILE is this figure or table.")] = None,
    bibtex: Annotated[bool, typer.Option("--bibtex", help="Only the BibTeX of the figure or table.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Where to look.")] = PUBLISHED,
) -> None:
    """List the published figures and tables; cite one; or say whether a file is the published one (exit 1 if not)."""
    from lib.reporting.verify import verify as verification
    from replications import citations

    if identifier is None and (verify or bibtex):
        raise UserError(f"Say of which: `regen cite ID {'--verify FILE' if verify else '--bibtex'}`.")
    if verify and bibtex:
        raise UserError("--verify and --bibtex are two commands: take one of them.")
    if identifier is None:
        print("\n".join(citations.listing(out, preset)))
    elif verify:
        found = verification(verify, identifier, out, preset)
        print(found.sentence)
        raise typer.Exit(0 if found.ok else 1)
    elif bibtex:
        print(citations.bibtex(identifier, out, preset), end="")
    else:
        print("\n".join(citations.told(identifier, out, preset)))


@app.command()
def bench(
    chosen: Annotated[
        list[str] | None, typer.Argument(metavar="[PART]...", help="As `--list` says; all if none.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Say what the parts are, and measure nothing.")] = False,
    as_json: Json = False,
    out: Out = LATEST,
) -> None:
    """How fast this is beside its peers and its floors, as ratios; kept in --out, with a page of all that is kept.

    scheduler: what many runs cost on workers. cost: what the paper preset would take. faults: what becomes of real runs
    when something breaks; exit 1 if a row does not end right. These three only where they are named.
    """
    from replications import bench as measured

    for part in chosen or []:
        measured.module_of(part)  # a wrong name is told before anything is measured
    if listed:
        print("\n".join(measured.parts()))
        raise typer.Exit
    _require_writable(out)
    wrong = False
    for part in chosen or [part for part in measured.parts() if part not in measured.NAMED]:
        record = measured.measure(part)
        page = measured.keep(record, out)
        print(json.dumps(record, indent=2) if as_json else measured.text(record), flush=True)
        wrong |= part == "faults" and any(row["right"] < row["n"] for row in record["rows"])
    if not as_json:
        print(f"Open {shown(page)}")
    raise typer.Exit(1 if wrong else 0)


def _chosen(keys: list[str] | None) -> list[str]:
    from replications import papers

    return [papers.load(key).key for key in dict.fromkeys(keys or known())]


def _compute(
    keys: list[str],
    preset: str,
    seeds: int | None,
    cluster: dict[str, Any],
    device: str,
    deadline: float | None,
    out: Path,
    experiments: list[str] | None = None,
) -> "list[Report]":
    from lib.execution.execute import Options
    from lib.execution.runs import Store
    from lib.execution.together import accompany, dismiss
    from lib.training.processes import joined
    from replications import papers

    with joined(device if cluster["scheduler"] else papers.resolve_device(device)) as (processes, where):
        # On a cluster the workers have the device, and this machine may have none.
        options = Options(device=where, deadline=deadline, processes=processes)
        if processes.first:
            runs = papers.chosen_runs(keys, preset, seeds, experiments)
            _require_writable(out, computed=True)
            reports = papers.compute_missing(runs, Store(out), options, **cluster)
            dismiss(processes)
        else:
            accompany(papers.compute, Store(out), options)
    if not processes.first:
        raise typer.Exit  # the first one says what became of the runs
    return reports


def _require_writable(folder: Path, computed: bool = False) -> None:
    """UserError where nothing can be written, or what is computed would take the place of what is published."""
    if computed and folder.resolve() == PUBLISHED.resolve():
        raise UserError(f"{shown(folder)} is written to by `regen publish` alone: choose another --out.")
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink(missing_ok=True)  # another command with this folder may have been as far
    except OSError as error:
        raise UserError(f"Nothing can be written to {folder} ({error.strerror}): choose another --out.") from None


def _say_endings(reports: "list[Report]") -> int:
    """One line that sums up; 1 if a run failed, crashed or ran out of time."""
    count = {e: sum(r.ending == e for r in reports) for e in ("finished", "kept", "failed", "crashed", "out of time")}
    told = {"finished": "computed", "kept": "already there"}
    print(f"{len(reports)} runs: " + ", ".join(f"{n} {told.get(e, e)}" for e, n in count.items() if n))
    for report in reports:
        if report.ending in ("failed", "crashed"):
            _complain(f"{report.run.name} {report.ending}: {report.said}")
    if count["out of time"]:
        _complain("The time budget is spent; the same command goes on from the last checkpoints.")
    return 1 if count["failed"] + count["crashed"] + count["out of time"] else 0


def _complain(sentence: str) -> None:
    typer.echo(f"regen: {sentence}", err=True)
