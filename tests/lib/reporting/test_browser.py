"""The page in a browser without a network: quiet, and no wider than a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.reporting.page import IndexEntry, index_page

pytestmark = pytest.mark.browser
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
SWITCHES = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync disable-dev-shm-usage"
)
SCROLLING = """return [...document.querySelectorAll('.scroll, pre, .display-math')]
    .filter(element => element.scrollWidth > element.clientWidth).length"""


@pytest.fixture(scope="module")
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


def load(browser: Any, path: Path, width: int, dark: bool = False) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get_log("browser")
    browser.get(path.as_uri())


def test_report_loads_quietly_and_from_itself_alone(browser, finished):
    browser.get_log("performance")
    load(browser, finished[0] / "page.html", 1400)
    assert browser.get_log("browser") == []
    sent = [
        entry["message"] for entry in browser.get_log("performance") if "Network.requestWillBeSent" in entry["message"]
    ]
    assert sent
    assert not [message for message in sent if '"url":"http' in message]
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    assert browser.execute_script("return document.images.length") == 2


@pytest.mark.parametrize("width", [320, 375, 900, 1400])
def test_report_is_no_wider_than_the_window(browser, finished, width):
    load(browser, finished[0] / "page.html", width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(SCROLLING) > 0 or width > 400, "nothing scrolls: this test looks at too small a page"


def test_contents_stand_aside_only_where_there_is_room(browser, finished):
    shown = "return [...document.querySelectorAll('nav.contents')].map(n => getComputedStyle(n).display != 'none')"
    load(browser, finished[0] / "page.html", 1400)
    assert browser.execute_script(shown) == [True, False]
    load(browser, finished[0] / "page.html", 375)
    assert browser.execute_script(shown) == [False, True]


def test_dark_page_keeps_figures_on_a_light_card(browser, finished):
    colours = "return [document.body, document.images[0]].map(e => getComputedStyle(e).backgroundColor)"
    load(browser, finished[0] / "page.html", 1000, dark=True)
    assert browser.execute_script(colours) == ["rgb(20, 23, 27)", "rgb(255, 255, 255)"]


def test_index_is_quiet_and_narrow(browser, tmp_path):
    entry = IndexEntry(
        "vae2013",
        "Auto-Encoding " * 6,
        "Kingma, 2013",
        "laptop",
        "v.html",
        {"not comparable": 3, "replicated": 4},
        "ok",
    )
    index_page(tmp_path / "index.html", [entry])
    load(browser, tmp_path / "index.html", 320)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 320
