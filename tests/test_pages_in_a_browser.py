"""The documentation in a real browser: the teaching page, and the built site with its search."""

import functools
import http.server
import threading
from pathlib import Path

import pytest
from chromium import NEEDED, Browser
from test_site import QUESTIONS

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
pytestmark = NEEDED


@pytest.fixture(scope="module")
def browser():
    made = Browser()
    yield made
    made.driver.quit()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *about):
        pass


@pytest.fixture(scope="module")
def site():
    """The address of the built site, on this machine."""
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: mkdocs build")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_sliders_move_the_equilibria_and_the_error(browser):
    browser.show((ROOT / "docs" / "play.html").as_uri())

    def error(name):
        rows = browser.run("[...document.querySelectorAll('#quality td')].map(each => each.textContent)")
        return float(rows[rows.index(name) + 2])

    def move(slider, value):
        event = f"e.value = {value}; e.dispatchEvent(new Event('input'))"
        browser.run(f"(e => {{{event}}})(document.getElementById('{slider}'))")

    one_sided, symmetric, drawn = error("one-sided"), error("symmetric"), browser.run("states.innerHTML")
    move("beta", -1.2)  # from 10^-0.7
    ratio = 10 ** (0.7 - 1.2)
    assert error("one-sided") == pytest.approx(ratio * one_sided, rel=0.3)
    assert error("symmetric") == pytest.approx(ratio**2 * symmetric, rel=0.3)
    assert browser.run("states.innerHTML") != drawn
    move("noise", 0.02)
    assert error("symmetric") > 20 * ratio**2 * symmetric
    assert "noise" in browser.run("said.textContent")
    move("noise", 0)
    move("sweeps", 2)
    assert "more sweeps" in browser.run("said.textContent")
    browser.check_quiet()


def test_the_site_fetches_nothing_from_elsewhere(browser, site):
    for page in ("index.html", "tutorials/first-network.html", "reference/api/eqprop.energy.html"):
        browser.show(f"{site}/{page}")
        assert browser.run("document.querySelectorAll('h1').length") == 1
    browser.check_quiet()


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_search_for_a_question_finds_its_answer_first(browser, site, question):
    browser.show(f"{site}/index.html?q={question.strip('?').replace(' ', '+')}")
    browser.driver.implicitly_wait(20)
    first = browser.driver.find_element("css selector", ".md-search-result__list a.md-search-result__link")
    assert first.get_attribute("href").split("?")[0].endswith(("questions.html", f"{QUESTIONS[question]}.html"))
