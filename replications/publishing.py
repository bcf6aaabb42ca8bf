"""Promote reports from reports/latest to reports/published, or make published ones anew; then what spans papers."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.execution.runs import SUMS, Failed, Finished
from lib.files import read_json, write_atomically
from lib.reporting.exhibits import read_exhibits, read_withheld, withhold, write_index
from replications import papers, reports
from replications.places import PUBLISHED


def publish(
    key: str, preset: str, root: Path, *, weights: bool, partial: bool = False, target: Path = PUBLISHED
) -> list[Path]:
    """Promote a report, its figures and its finished runs from `root` to `target`. Returns the files written.

    What spans papers is made by `publish_site` afterwards.

    Figures that show images of a data set are left out, in the pages too. Weights stay behind unless asked for: their
    digest is kept in SHA256SUMS, and the run makes them again bit for bit.
    Published pages of other presets that share a run which changes are made anew; runs that no published page is made
    of any more are removed.
    Raises UserError if the report is missing, failed, not of the runs in `root`, or, unless `partial`, of all planned.
    """
    source = root / preset
    summary_path = source / f"{key}.report.json"
    if not summary_path.exists() or not (source / f"{key}.html").exists():
        raise UserError(
            f"There is no {preset} report of {key} in {root}: `regen report {key} --preset {preset}` first."
        )
    if read_json(summary_path)["state"] == "failed":
        raise UserError(f"The {preset} report of {key} failed and is not published: mend it and report again.")
    reports.require_standing(key, preset, root)
    results = papers.read(key, preset, None, root)
    missing = [run.name for run, outcome in results.outcomes if outcome is None]
    if missing and not partial:
        raise UserError(
            f"{len(missing)} runs of {key} {preset} are not computed (the first: {missing[0]}): `regen run` computes"
            " them; with --partial what is there is published."
        )
    written = _publish_page(key, source, target / preset)
    changed = set()
    for run, outcome in results.outcomes:
        if isinstance(outcome, Finished | Failed):
            before = target / (outcome.folder / SUMS).relative_to(root)
            if before.is_file() and before.read_bytes() != (outcome.folder / SUMS).read_bytes():
                changed.add(run.fingerprint)
                shutil.rmtree(before.parent)  # with the weights, which are not its any more
            names = sorted(path for path in outcome.folder.iterdir() if weights or path.suffix != ".safetensors")
            written += [_copy(path, target / path.relative_to(root)) for path in names]
    for other in _published_presets(key, target):
        if other != preset and changed & {run.fingerprint for run in papers.plan(key, other)}:
            written += publish_again(key, other, target)
    _remove_superseded(key, target)
    return written


def _remove_superseded(key: str, target: Path) -> None:
    """Remove the published runs that no published preset plans: those of an older config or algorithm version."""
    plans = [papers.plan(key, preset) for preset in _published_presets(key, target)]
    if not all(plans):  # of photographs that are not here: nobody can tell which runs are theirs
        return
    planned = {run.fingerprint for plan in plans for run in plan}
    for folder in (target / "runs" / key).glob("*/"):
        if folder.name not in planned:
            shutil.rmtree(folder)


def _published_presets(key: str, target: Path) -> list[str]:
    return sorted(path.parent.name for path in target.glob(f"*/{key}.report.json"))


def publish_again(key: str, preset: str, target: Path = PUBLISHED) -> list[Path]:
    """Make a published report anew from the published runs, for a change of its words or its look. Computes nothing.

    Figures that are drawn from weights, which are not published, stay as they are.
    Raises UserError if that report is not published, or its notebook fails.
    """
    if not (target / preset / f"{key}.report.json").exists():
        raise UserError(f"No {preset} report of {key} is published: `regen publish {key} --preset {preset}` does it.")
    with tempfile.TemporaryDirectory(prefix="regen-publish-") as folder:
        root = Path(folder) / "published"  # pages tell the last part of the path
        root.mkdir()
        (root / "runs").symlink_to((target / "runs").resolve())
        shutil.copytree(target / preset / "figures", root / preset / "figures")
        built = reports.build(key, preset, papers.default_seeds(preset), root, "none", {})
        if built.reason:
            raise UserError(f"{built.reason} Nothing was published.")
        return _publish_page(key, root / preset, target / preset)


def publish_site(target: Path = PUBLISHED) -> list[Path]:
    """What spans papers, after their reports were published: the summaries, the site, the research object."""
    from replications.bench import retell_cost
    from replications.crate import write_crate
    from replications.site import write_site

    presets = sorted({path.parent.name for path in target.glob("*/*.report.json")} - {"smoke"})
    for preset in presets:
        built = reports.build_summary(preset, papers.default_seeds(preset), target)
        if built.reason:
            raise UserError(f"The summary of {preset} failed in {built.reason}.")
    retell_cost(target)
    return [write_site(target), write_crate(target)]


def _publish_page(key: str, source: Path, target: Path) -> list[Path]:
    """A report with its figures, without the pictures that show images of a data set."""
    figures = source / "figures"
    mine = [exhibit for exhibit in read_exhibits(figures) if exhibit["identifier"].startswith(f"{key}/")]
    withheld = [exhibit for exhibit in mine if exhibit["shows_data"]]
    shown = [exhibit for exhibit in mine if not exhibit["shows_data"]]
    written = [_without_data(source / f"{key}.ipynb", target / f"{key}.ipynb", withheld)]
    written += [_copy(source / f"{key}.{end}", target / f"{key}.{end}") for end in ("verdicts.json", "report.json")]
    shutil.rmtree(target / "figures" / key, ignore_errors=True)
    names = [name for exhibit in shown for name in exhibit["files"]]
    written += [_copy(figures / name, target / "figures" / name) for name in names]
    others = [e for e in read_exhibits(target / "figures") if not e["identifier"].startswith(f"{key}/")]
    left_out = {name for name in read_withheld(target / "figures") if not name.startswith(f"{key}/")}
    left_out |= {exhibit["identifier"] for exhibit in withheld}
    write_index(target / "figures", [*others, *shown], left_out)
    reports.write_page(papers.load(key), target.name, target)
    return [*written, target / f"{key}.html"]


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target


def _without_data(source: Path, target: Path, withheld: Sequence[Mapping[str, Any]]) -> Path:
    """Copy an executed notebook with the pictures of some figures left out."""
    notebook = json.loads(source.read_text())
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        if "text/html" in output.get("data", {}):
            markup = "".join(output["data"]["text/html"])
            for exhibit in withheld:
                markup = withhold(markup, exhibit["identifier"])
            output["data"]["text/html"] = markup.splitlines(keepends=True)
    write_atomically(target, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return target
