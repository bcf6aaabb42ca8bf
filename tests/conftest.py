"""For all tests: repeatable hypothesis on a CI machine, and one headless browser without a network."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # several workers share the cores; torch must not take all of them in each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a shell starts in the background ignores Ctrl-C, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

REPOSITORY = Path(__file__).parents[1]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
SWITCHES = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync disable-dev-shm-usage"
)
PACKAGES = Path(__file__).parent / "browser" / "package.json"


# A file's tests stay on one worker, so that those of which the others would wait at the end begin first.
LONGEST = ("test_site.py", "test_notebooks.py", "test_executors.py", "test_execute.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def regen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command in this process, which spares it seconds of imports: what main() lets through fails the test."""

    from replications.__main__ import main

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["regen", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., subprocess.CompletedProcess]:
    """Start a program on two processes, as `torchrun --nproc-per-node 2` does; one that hangs is ended and told."""

    def start(*arguments: object, timeout: float = 400) -> subprocess.CompletedProcess:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [*launcher, *map(str, arguments)]
        env = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=-1, stderr=-1, text=True) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.terminate()  # torchrun then ends its processes, which are in sessions of their own
                pytest.fail(f"still running after {timeout} s: {process.communicate(timeout=60)[1]}")
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return start


def _process(verb: str, folder: Path) -> None:
    command = [sys.executable, "-m", "replications", verb, "--preset", "smoke", "--workers", "2", "--out", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke runs of all papers, computed once for all tests as a user would. Not to be written to: copy it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke"
    with FileLock(f"{folder}.lock"):
        if not (folder / "runs").exists():
            _process("run", folder)
    return folder


@pytest.fixture(scope="session")
def smoke_reports(smoke: Path) -> Path:
    """The same folder, with the reports of all papers. By a lock of their own: who wants the runs reads no report."""
    with FileLock(f"{smoke}-reports.lock"):
        if not (smoke / "index.html").exists():
            _process("report", smoke)
    return smoke


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (the `dev` extra)")
    if not (BROWSER and DRIVER):
        pytest.skip("needs chromium and chromedriver (apt-get install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    profile = tmp_path_factory.mktemp("profile")
    for switch in f"{SWITCHES} user-data-dir={profile}".split():
        options.add_argument(f"--{switch}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")  # no network
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def load(browser: Any) -> Callable[..., None]:
    """Open a page at a width of the window, light or dark."""
    from selenium.webdriver.support.ui import WebDriverWait

    def load(path: Path, width: int = 1280, dark: bool = False, anchor: str = "") -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get("about:blank")  # else a page that is open already would only jump to the anchor
        browser.get_log("browser")
        browser.get(path.as_uri() + anchor)
        # On a busy machine this was once over before the page's script had run.
        loaded = "return document.readyState === 'complete' && location.protocol === 'file:'"
        WebDriverWait(browser, 60).until(lambda browser: browser.execute_script(loaded))

    return load


@pytest.fixture(scope="session")
def node_modules(request: pytest.FixtureRequest) -> Path:
    """axe-core and html-validate, installed by npm once for each content of tests/browser/package.json."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs node and npm, which install axe-core and html-validate")
    digest = hashlib.sha256(PACKAGES.read_bytes()).hexdigest()[:12]
    folder = Path(request.config.cache.mkdir(f"node-{digest}"))
    wanted = json.loads(PACKAGES.read_text())["dependencies"]
    with FileLock(folder / ".lock"):
        if not all((folder / "node_modules" / name / "package.json").is_file() for name in wanted):
            shutil.copy(PACKAGES, folder)
            command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=180)
            if done.returncode:
                pytest.skip(f"npm could not install axe-core and html-validate: {done.stderr.strip().splitlines()[-1]}")
    return folder / "node_modules"
