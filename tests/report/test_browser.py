"""The pages in a real browser: the slider moves the pictures, and nothing leaves the page."""

import base64
import shutil
import threading
import time
from pathlib import Path

import pytest
from chromium import NEEDED, Browser

from eqprop.report import compare, report
from eqprop.report.live import Pages, server
from eqprop.report.subject import Opened
from eqprop.runs.folder import fail

pytestmark = NEEDED
KINDS = ("digits", "regression", "hardware", "interrupted", "failed")


@pytest.fixture(scope="session")
def browser():
    made = Browser()
    yield made
    made.driver.quit()


def address(path):
    return Path(path).resolve().as_uri()


@pytest.fixture(scope="session")
def made(runs):
    """A page of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(runs / "work")
        patch.setenv("EQPROP_CACHE", str(runs / "cache"))
        for name in KINDS:
            report(name, f"{name}.html")
        yield runs / "work"


@pytest.mark.parametrize("name", KINDS)
def test_the_slider_moves_and_changes_the_pictures(made, browser, tmp_path, name):
    browser.show(address(f"{name}.html"))
    last = int(browser.run("document.querySelector('input[type=range]').max"))
    assert last > 2
    slider, seen = browser.driver.find_element("css selector", "input[type=range]"), []
    films = "[...document.querySelectorAll('.film')].map(each => each.getAttribute('viewBox')).join()"
    cursors = "[...document.querySelectorAll('.cursor')].map(each => each.getAttribute('x1')).join()"
    said = "document.querySelector('output').textContent"
    spoken = "document.querySelector('input[type=range]').getAttribute('aria-valuetext')"
    slider.send_keys("\ue011")  # Home: by the keyboard
    for _ in range(last + 1):
        *shown, heard = browser.run(f"[{films}, {cursors}, {said}, {spoken}]")
        assert shown[-1] == heard
        seen.append(tuple(shown))
        slider.send_keys("\ue014")  # right
    assert len({place for _, place, _ in seen}) == last + 1
    assert len({text for *_, text in seen}) == last + 1
    assert len({view for view, *_ in seen}) == last + 1
    assert "free phase, after 0 of" in seen[0][2]
    assert "nudged phase" in seen[-1][2]
    tall = browser.run("document.documentElement.scrollHeight")
    before = browser.screenshot(tmp_path / "last.png")
    slider.send_keys("\ue011")
    assert browser.run("document.documentElement.scrollHeight") == tall, "the page jumps"
    assert browser.screenshot(tmp_path / "first.png") != before, "the pictures do not change"
    browser.check_quiet()


def test_play_goes_to_the_end_and_stops(made, browser):
    browser.show(address("digits.html"))
    slider, button = (browser.driver.find_element("css selector", each) for each in ("input[type=range]", "button"))
    last = int(slider.get_attribute("max"))
    browser.run(f"document.querySelector('input').value = {last - 3}")
    button.click()
    assert button.text == "Stop"
    deadline = time.monotonic() + 60
    while button.text == "Stop" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert int(slider.get_property("value")) == last
    button.click()
    assert int(slider.get_property("value")) < last
    button.click()
    assert button.text == "Play"
    browser.check_quiet()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("name", ["digits", "hardware", "comparison"])
def test_pages_fit_their_window(made, browser, tmp_path, name, width, scheme):
    path = f"{name}.html"
    if name == "comparison":
        path = compare(["digits", "hardware", "regression"], tmp_path / "comparison.html")
    browser.show(address(path), width, scheme)
    assert browser.run("document.documentElement.scrollWidth") <= width, "the page is wider than its window"
    _, _, drawn = browser.screenshot(tmp_path / "page.png")
    back = browser.run("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)")
    assert len(set(drawn)) > 50
    small = "[...document.querySelectorAll('main *')].filter(e => e.children.length === 0 && e.textContent.trim() && "
    small += "!e.closest('svg,script,style,.hidden') && parseFloat(getComputedStyle(e).fontSize) < 12).length"
    assert browser.run(small) == 0, "text that is too small to read"
    hidden = (
        "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0).length"
    )
    assert browser.run(hidden) == 0, "a part that only a mouse can scroll"
    browser.check_quiet()


def test_a_page_prints_whole(made, browser):
    browser.show(address("digits.html"))
    data = base64.b64decode(browser.command("Page.printToPDF", printBackground=True)["data"])
    assert data.startswith(b"%PDF")
    assert browser.run("[...document.querySelectorAll('details')].every(each => each.open)"), "nothing stays folded"
    browser.check_quiet()


def test_no_text_of_a_stranger_runs(made, browser, tmp_path):
    """Even if it were not escaped, the page's policy would refuse it."""
    text = Path("digits.html").read_text()
    evil = "<script>document.title = 'evil'</script><img src=x onerror=\"document.title = 'evil'\">"
    (tmp_path / "evil.html").write_text(text.replace("<main", f"{evil}<main", 1))
    browser.show(address(tmp_path / "evil.html"))
    assert browser.run("document.title") == "digits: report of a run"
    assert (
        len([each for each in browser.driver.get_log("browser") if "Content Security Policy" in each["message"]]) >= 2
    )
    browser.driver.get_log("performance")


def test_a_live_page_is_loaded_again_when_there_is_something_new(made, browser, tmp_path):
    shutil.copytree("digits", tmp_path / "run")
    pages = Pages(Opened(tmp_path / "run"), 5.0)
    served = server(pages, 0)
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        browser.show(f"http://127.0.0.1:{served.server_address[1]}/")
        assert "a new thing" not in browser.run("document.body.textContent")
        fail(tmp_path / "run", ValueError("a new thing"))
        pages.again = 0.0
        deadline = time.monotonic() + 90
        while "a new thing" not in browser.run("document.body.textContent") and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "a new thing" in browser.run("document.body.textContent")
        browser.check_quiet()
    finally:
        served.shutdown()
        served.server_close()
    deadline = time.monotonic() + 30
    while "has ended" not in browser.run("document.body.textContent") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "has ended" in browser.run("document.body.textContent")
    browser.driver.get_log("browser")  # of the request that failed
