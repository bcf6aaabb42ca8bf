"""The page in a browser without a network: quiet, and no wider than a phone."""

import pytest

from lib.reporting.page import IndexEntry, index_page

pytestmark = pytest.mark.browser
SCROLLING = """return [...document.querySelectorAll('.scroll, pre, .display-math')]
    .filter(element => element.scrollWidth > element.clientWidth).length"""


def test_report_loads_quietly_and_from_itself_alone(browser, load, finished):
    browser.get_log("performance")
    load(finished[0] / "page.html", 1400)
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
def test_report_is_no_wider_than_the_window(browser, load, finished, width):
    load(finished[0] / "page.html", width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(SCROLLING) > 0 or width > 400, "nothing scrolls: this test looks at too small a page"


def test_contents_stand_aside_only_where_there_is_room(browser, load, finished):
    shown = "return [...document.querySelectorAll('nav.contents')].map(n => getComputedStyle(n).display != 'none')"
    load(finished[0] / "page.html", 1400)
    assert browser.execute_script(shown) == [True, False]
    load(finished[0] / "page.html", 375)
    assert browser.execute_script(shown) == [False, True]


def test_dark_page_keeps_figures_on_a_light_card(browser, load, finished):
    colours = "return [document.body, document.images[0]].map(e => getComputedStyle(e).backgroundColor)"
    load(finished[0] / "page.html", 1000, dark=True)
    assert browser.execute_script(colours) == ["rgb(20, 23, 27)", "rgb(255, 255, 255)"]


def test_index_is_quiet_and_narrow(browser, load, tmp_path):
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
    load(tmp_path / "index.html", 320)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 320
