"""The house around the code agrees with itself: pins, versions, workflows, and how `make` makes the environment."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIRECT = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in group
]


def locked(python: str) -> dict[str, str]:
    """The lock's version of each package on Linux with this Python, as 3.11."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
    }
    pins = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line[:1].isalnum():
            pin = Requirement(line.rstrip(" \\"))
            if pin.marker is None or pin.marker.evaluate(environment):
                assert pin.name not in pins, f"{pin.name} is locked twice for Python {python}"
                pins[pin.name] = str(pin.specifier).removeprefix("==")
    return pins


# --- versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_satisfies_pyproject(python):
    pins = locked(python)
    missing = [str(need) for need in DIRECT if need.name not in pins]
    assert not missing, "run `make lock`"
    assert not [str(need) for need in DIRECT if not need.specifier.contains(pins[need.name])]
    assert "setuptools" in pins, "make installs the project itself with the locked setuptools"


def test_conda_pins_are_the_locks():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert "python=3.11" in conda["dependencies"]
    *pinned, itself = next(entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    assert itself == "-e ."
    pins = {need.name: str(need.specifier) for need in map(Requirement, pinned)}
    versions = locked("3.11")
    assert pins == {need.name: f"=={versions[need.name]}" for need in DIRECT}


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"]
    assert citation["title"]
    assert citation["authors"] == [{"name": author["name"]} for author in PROJECT["authors"]]
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]


# --- machinery ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_asks_for_little(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    used = re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_every_target_that_is_named_exists():
    """In workflows, scripts and pages: `make something` is a promise."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    pages = [".ci/run", *(f".github/workflows/{name}.yml" for name in ("tests", "reports"))]
    named = {
        target
        for page in pages
        for target in re.findall(r"^\s*(?:run: |exec )?make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE)
    }
    pages = [page for page in ("README.md", "CONTRIBUTING.md") if (ROOT / page).is_file()]
    for page in pages:
        named |= set(re.findall(r"(?:^ +|`|^)make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert named
    assert named <= targets


def test_the_ci_script_runs_and_ends_with_the_tests():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], timeout=10).returncode == 0
    assert script.read_text(encoding="utf-8").rstrip().endswith("exec make test")


# --- the environment ---------------------------------------------------------------------------------------------

# Stands for Python and, copied into the environment, for its pip: it notes what it was asked and does as it is told.
FAKE_PYTHON = """#!/bin/sh
echo "$@" >> "{log}"
case "$*" in
  --version) echo "Python $FAKE_VERSION" ;;
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *"-r requirements.lock"*) test -z "$FAKE_PIP_FAILS" || {{ echo "ERROR: no space left" >&2; exit 1; }} ;;
esac
"""


class Checkout:
    """A folder with our Makefile and an interpreter that installs nothing."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        for name in ("Makefile", "requirements.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        self.log = folder / "log"
        self.python = folder / "fake-python"
        self.python.write_text(FAKE_PYTHON.format(log=self.log))
        self.python.chmod(0o755)

    def make(self, *arguments: str, version: str = "3.11.9", fails: bool = False) -> subprocess.CompletedProcess:
        self.log.write_text("")
        # A make that runs these tests hands its own flags and variables down.
        own = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS"}
        inherited = {name: value for name, value in os.environ.items() if name not in own}
        return subprocess.run(
            ["make", *arguments, f"PYTHON={self.python}"],
            cwd=self.folder,
            env=inherited | {"FAKE_VERSION": version, "FAKE_PIP_FAILS": "1" if fails else ""},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def installed(self) -> bool:
        return "-r requirements.lock" in self.log.read_text()


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return Checkout(tmp_path / "a path with spaces")


@pytest.mark.parametrize("version", ["2.7.18", "3.1.4", "3.9.18", "3.10.13"])
def test_an_old_python_is_refused_in_one_sentence(checkout, version):
    done = checkout.make("reports", version=version)
    assert done.returncode == 2
    sentence, *rest = done.stderr.splitlines()
    assert sentence.startswith(f"regen needs Python 3.11 or newer and found Python {version}: ")
    assert all(line.startswith("make: ") for line in rest)
    assert not (checkout.folder / ".venv").exists()


def test_a_missing_python_is_refused(checkout):
    checkout.python.unlink()
    done = checkout.make("env")
    assert done.returncode == 2
    assert "no Python under the name" in done.stderr


@pytest.mark.parametrize("version", ["3.11.0", "3.12.1", "3.13.0", "3.20.0"])
def test_the_environment_is_made_once(checkout, version):
    first = checkout.make("env", version=version)
    assert first.returncode == 0, first.stderr
    assert checkout.installed()
    assert "about 6 GB" in first.stdout
    assert "--require-hashes" in checkout.log.read_text()
    again = checkout.make("env", version=version)
    assert again.returncode == 0
    assert checkout.log.read_text() == ""


def test_a_changed_lock_makes_a_new_environment(checkout):
    assert checkout.make("env").returncode == 0
    leftover = checkout.folder / ".venv" / "leftover"
    leftover.touch()
    lock = checkout.folder / "requirements.lock"

    lock.write_text("# a comment\n" + lock.read_text())
    assert checkout.make("env").returncode == 0
    assert not checkout.installed(), "a comment changes nothing"

    lock.write_text(lock.read_text().replace("six==", "six==0."))
    assert checkout.make("env").returncode == 0
    assert checkout.installed()
    assert not leftover.exists()


def test_new_file_times_mean_nothing(checkout):
    assert checkout.make("env").returncode == 0
    for name in ("requirements.lock", "pyproject.toml", "Makefile"):
        os.utime(checkout.folder / name)
    assert checkout.make("env").returncode == 0
    assert checkout.log.read_text() == ""


def test_a_changed_pyproject_installs_the_project_only(checkout):
    assert checkout.make("env").returncode == 0
    pyproject = checkout.folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('version = "0.1.0"', 'version = "0.1.1"'))
    assert checkout.make("env").returncode == 0
    assert "-e ." in checkout.log.read_text()
    assert not checkout.installed()


def test_a_moved_checkout_gets_a_new_environment(checkout):
    assert checkout.make("env").returncode == 0
    moved = checkout.folder.rename(checkout.folder.parent / "moved")
    checkout.folder, checkout.log, checkout.python = moved, moved / "log", moved / "fake-python"
    checkout.python.write_text(FAKE_PYTHON.format(log=checkout.log))
    assert checkout.make("env").returncode == 0
    assert checkout.installed()


def test_a_failed_installation_does_not_count(checkout):
    done = checkout.make("env", fails=True)
    assert done.returncode == 2
    assert "ERROR: no space left" in done.stderr, "pip's own error is shown"
    assert "the same command tries again" in done.stderr
    assert not (checkout.folder / ".venv").exists()
    assert checkout.make("env").returncode == 0
    assert checkout.installed()


def test_an_interrupted_installation_does_not_count(checkout):
    """What a power cut leaves: a .venv with an interpreter, half its packages, and no stamp."""
    debris = checkout.folder / ".venv" / "bin"
    debris.mkdir(parents=True)
    shutil.copy(checkout.python, debris / "python")
    half = debris.parent / "half-a-package"
    half.touch()
    assert checkout.make("env").returncode == 0
    assert checkout.installed()
    assert not half.exists()


def test_plain_make_prints_the_targets(checkout):
    done = checkout.make()
    assert done.returncode == 0
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    public = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    assert set(re.findall(r"^make ([a-z-]+)", done.stdout, re.MULTILINE)) == public
    assert not (checkout.folder / ".venv").exists()
