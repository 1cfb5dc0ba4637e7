"""The pages of runs: what they tell, that they are whole, small and safe, and that a stranger's file stays text."""

import html.parser
import json
import re
import shutil
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from report.conftest import COMMANDS, changed, pages

import eqprop as ep
from eqprop.cli import main
from eqprop.report import report
from eqprop.report.blocks import Chart, Line, Page, Section, Table, Text
from eqprop.report.charts import svg, ticks
from eqprop.report.html import render
from eqprop.report.pictures import EMPTY, films, frames_of, quantised
from eqprop.report.settling import MOST, Recorder, settle
from eqprop.report.subject import Clock, TimeOver
from eqprop.settling import FixedSweeps, alternating

EMPTY_TAGS = {"meta", "link", "input", "img", "br"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}</style></title>"


class Parsed(html.parser.HTMLParser):
    """What a page holds: its tags with their attributes, and its texts by tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        assert not self.open, f"{self.open} are not closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def said(self):
        return " ".join(" ".join(text for tag, text in self.texts if tag not in ("script", "style")).split())


def check_page(text):
    """What every page must be. Returns what it holds."""
    assert len(text.encode()) < 5_000_000
    found = Parsed(text)
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert "style" not in attributes, "the policy refuses it"
        for name in ("src", "href", "action", "data", "srcset", "poster", "xlink:href"):
            if tag == "object" or name not in attributes or tag == "div":
                continue
            assert re.match(r"#[\w-]+$|data:image/png;base64,|data:,$", attributes[name]), (tag, attributes[name][:100])
    assert len(found.all("script")) == 1
    assert "@import" not in text
    assert "url(" not in text
    (policy,) = (each["content"] for each in found.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    assert all(each.get("alt") for each in found.all("img"))
    names = {each["id"] for _, each in found.tags if "id" in each}
    assert len(names) == sum("id" in each for _, each in found.tags), "two elements have one id"
    for each in found.all("a"):
        assert each["href"].removeprefix("#") in names
    labels = {each["for"] for each in found.all("label")}
    for slider in found.all("input"):
        assert slider["type"] == "range"
        assert slider["id"] in labels
        assert slider["aria-valuetext"]
    for each in found.all("svg"):
        labelled = each.get("aria-hidden") or each.get("aria-label") or set(each["aria-labelledby"].split()) <= names
        assert labelled, each
    headings = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert headings == [1] + [2] * (len(headings) - 1)
    assert len(found.all("main")) == 1
    return found


SECTIONS = {
    "digits": {"answers", "filters", "settling", "residuals", "gradient"},
    "regression": {"answers", "filters", "settling", "residuals", "gradient"},
    "hardware": {"answers", "filters", "settling", "residuals", "gradient", "hardware"},
    "classes": {"answers", "settling", "residuals", "gradient"},
    "sequence": {"answers", "settling", "residuals", "gradient"},
    "loader": {"answers", "settling", "residuals", "gradient"},
    "failed": {"answers"},
}
ALWAYS = {"summary", "network", "curves", "data", "settings", "reproduce"}
SAYS = {
    "digits": ("Finished: 2 of 2 epochs", "Confusion matrix", "most confident mistakes", "Verdict:", "embedded digits"),
    "regression": ("predicted (vertical) against true", "Errors in the units of the data", "size", "price"),
    "hardware": ("noisy-weights", "tiki-taka", "pulses per weight", "nothing here was measured on a device"),
    "classes": ("Confusion matrix", "most confident mistakes", "true", "town"),
    "sequence": ("Confusion matrix", "7x3"),
    "loader": ("Confusion matrix", "mine.py"),
    "failed": (
        "Failed: 1 of 2 epochs",
        "What ended it: epoch 2, batch 2",
        "is not finite",
        "Lower the learning rates",
        "What to change",
    ),
}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "interrupted"])
def test_pages_after_training(work, name):
    found = check_page(pages(name))
    sections = {each["id"] for each in found.all("section")}
    assert sections >= ALWAYS | SECTIONS[name]
    assert ("hardware" in sections) == (name == "hardware")
    for words in SAYS[name]:
        assert words in found.said(), found.said()[:3000]
    if name != "failed":
        assert "Left out" not in found.said()
        assert len(found.all("input")) == 1
    command = json.loads(Path(name, "run.json").read_text())["command"]
    assert " ".join(command) in found.said().replace("'", "")


def test_an_interrupted_run(work, capsys):
    assert not Path("interrupted/report.html").exists(), "a stop is quick"
    assert main(["report", "interrupted"]) == 0
    assert capsys.readouterr().out == "Report: interrupted/report.html\n"
    said = check_page(pages("interrupted")).said()
    assert "Not finished: 1 of 2 epochs done. `eqprop resume interrupted` continues it" in said


def test_the_command_makes_the_page_that_training_made(work, tmp_path):
    """But for times, that of the loss in the weights' words, and parts that time leaves out."""
    made = report("digits", tmp_path / "again.html").read_text()
    check_page(made)
    one, two = (re.sub(r"Made [^<]*|A step of [^<]*", "", each) for each in (pages("digits"), made))
    assert re.sub("chart\\d+", "", one) == re.sub("chart\\d+", "", two)


def test_the_valid_weights_of_a_failed_run_are_shown(work, tmp_path):
    found = check_page(report("failed", tmp_path / "a.html").read_text())
    assert {each["id"] for each in found.all("section")} >= ALWAYS | SECTIONS["digits"]
    assert "Failed: 1 of 2 epochs" in found.said()
    assert "the best weights, of epoch 1" in found.said()


def test_a_run_goes_on_after_its_failure(work, tmp_path):
    shutil.copytree("failed", tmp_path / "failed")
    assert Path("failed/failed.txt").read_text().startswith("epoch 2, batch 2: the loss is nan")
    assert main(["resume", str(tmp_path / "failed")]) == 0  # this recipe fails after some steps of one process
    assert not (tmp_path / "failed/failed.txt").exists()
    assert "Finished: 2 of 2 epochs" in check_page(pages(tmp_path / "failed")).said()


def test_no_report(work, tmp_path):
    command = ["train", *COMMANDS["digits"], "--epochs", "1", "--report_seconds", "0", "--out", str(tmp_path / "none")]
    assert main(command) == 0
    assert not (tmp_path / "none/report.html").exists()


def test_a_failure_of_the_report_is_a_line(work, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("a disk\nthat breaks")

    monkeypatch.setattr("eqprop.report.sections.page", broken)
    assert main(["train", *COMMANDS["digits"], "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "report.html cannot be written (a disk that breaks); the run goes on." in said.out
    assert not said.err


def test_a_run_without_its_data(work, tmp_path):
    shutil.copytree("regression", tmp_path / "run")
    shutil.move("houses.csv", tmp_path / "away.csv")
    try:
        said = check_page(report(tmp_path / "run").read_text()).said()
        with pytest.raises(ep.InputError):
            report(tmp_path / "run", data=str(tmp_path / "nowhere.csv"))
        again = check_page(report(tmp_path / "run", data=str(tmp_path / "away.csv")).read_text()).said()
    finally:
        shutil.move(tmp_path / "away.csv", "houses.csv")
    assert "What needs the data is left out:" in said
    assert "Weights input_layer1" in said
    assert "Errors in the units" not in said
    assert "Errors in the units" in again


def test_a_stranger_s_run_runs_no_code_and_stays_text(work, tmp_path, monkeypatch):
    for name in ("digits", "loader"):
        shutil.copytree(name, tmp_path / name)
    monkeypatch.setenv("EQPROP_CACHE", str(tmp_path / "cache"))
    said = check_page(report(tmp_path / "loader").read_text()).said()
    assert "its recipe is code" in said
    held = json.loads((tmp_path / "digits/run.json").read_text())
    manifest = held["manifest"] | {"classes": [EVIL, *held["manifest"]["classes"][1:]], "notes": [EVIL], "place": EVIL}
    manifest["skipped"] = {EVIL: EVIL}
    values = {"command": ["eqprop", EVIL], "versions": {EVIL: EVIL}, "machine": EVIL, "commit": EVIL, "made": EVIL}
    changed(tmp_path / "digits", manifest=manifest, directory=EVIL, start=EVIL, **values)
    config = tmp_path / "digits/config.json"
    told = json.loads(config.read_text())
    told["outputs"]["arguments"]["names"][0] = EVIL
    config.write_text(json.dumps(told))
    rows = (
        (tmp_path / "digits/metrics.csv").read_text().replace("train_loss", f'"{EVIL.replace(chr(34), chr(34) * 2)}"')
    )
    (tmp_path / "digits/metrics.csv").write_text(rows)
    (tmp_path / "digits/failed.txt").write_text(EVIL)
    found = check_page(report(tmp_path / "digits").read_text())
    assert "<script>alert(1)</script>" in found.said()
    assert "{{ 7*7 }}" in found.said()
    assert "onerror" not in {name for _, attributes in found.tags for name in attributes}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(
            ("metrics.csv", text)
            for text in ("", "epoch\n", "epoch,a\n1\n", "a\n1\n", "epoch\nx\n", "\0", "epoch\n1\n" * 3)
        ),
        *(("summary.json", text) for text in ("", "[]", "{", '{"test_accuracy_best": []}', '{"best_epoch": 1e999}')),
        *(("best.json", text) for text in ("", "{}")),
        *(("last.json", text) for text in ("", "{}")),
        *(("config.json", text) for text in ("", "{}")),
        *(("failed.txt", text) for text in ("", "\udcff", "x" * 10_000)),
    ],
)
def test_files_that_are_damaged(work, tmp_path, file, content):
    """The page tells of it, or does not need the file."""
    shutil.copytree("digits", tmp_path / "run")
    (tmp_path / "run" / file).write_text(content, errors="surrogateescape")
    check_page(report(tmp_path / "run", seconds=0).read_text())


def test_time_that_is_over_leaves_parts_out(work, tmp_path):
    said = check_page(report("digits", tmp_path / "a.html", seconds=0).read_text()).said()
    assert said.count("Left out: it takes longer than this report may") == 3
    assert "Weights input_layer1" in said


def test_a_slow_network_takes_no_longer_than_it_may():
    network = ep.chain((4,), [ep.DenseLayer(5)], ep.SquaredError)
    clock, landscape = Clock(0.3), network.landscape(torch.rand(2, 4))
    begin = time.monotonic()
    with pytest.raises(TimeOver), clock.limiting():
        FixedSweeps(10**7)(landscape, landscape.zeros())
    assert time.monotonic() - begin < 60
    with pytest.raises(TimeOver), clock.limiting():
        pytest.fail("no time was left")
    FixedSweeps(2)(landscape, landscape.zeros())  # whoever listened has gone


# -- what is drawn --


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ep.chain((1, 6, 6), [ep.ConvLayer(3), ep.DenseLayer(4)], ep.SquaredError)


@pytest.mark.parametrize("n", [1, 2, 7, MOST, 200])
def test_recorded_phases_are_those_of_the_estimator(network, n):
    x, y = torch.rand(1, 1, 6, 6), torch.tensor([1])
    estimator = ep.EquilibriumPropagation(ep.symmetric(0.3), FixedSweeps(n), FixedSweeps(4))
    free, nudged, landscapes, _ = settle(network.eval(), estimator, x, y)
    with torch.no_grad():
        landscape = network.landscape(x)
        whole = estimator.free(landscape, landscape.zeros())
        nudges = estimator(landscape)[0]
    assert free.sweeps[0] == 0
    assert free.sweeps[-1] == n
    assert len(free.states) == min(n + 1, len(free.states)) <= MOST
    assert list(free.sweeps) == sorted(set(free.sweeps))
    for node, value in whole.state.items():
        assert torch.equal(free.states[-1][node], value)
        assert torch.equal(nudges.state[node], nudged.states[0][node])
        assert len(free.residuals[node]) == n
        assert free.residuals[node][-1] == pytest.approx(float(whole.residuals[node]))
    assert landscapes[1].energy(nudged.states[-1]) <= landscapes[1].energy(nudged.states[0])


def test_an_energy_descends_in_the_recorded_sweeps(network):
    landscape = network.double().landscape(torch.rand(1, 1, 6, 6).double())
    recorder = Recorder(alternating, landscape.zeros())
    with torch.no_grad():
        FixedSweeps(10, recorder)(landscape, landscape.zeros())
        energies = [float(landscape.energy(state)) for state in recorder.phase().states]
    assert all(after <= before + 1e-12 for before, after in pairwise(energies))
    assert energies[-1] < energies[0]


def test_films_have_one_scale_and_every_frame():
    values = torch.linspace(-1, 3, 5 * 2 * 3 * 3).view(5, 2, 3, 3)
    one, two = films(values, [2, 3], 10_000, ["a", "b"], signed=False)
    assert (one.frames, two.frames) == (2, 3)
    assert one.caption == two.caption == "-3 to 3"
    assert one.size == two.size == (7, 3)


@pytest.mark.parametrize(
    "shape", [(1,), (7,), (5000,), (3, 4), (300, 40), (1, 1, 1), (3, 8, 8), (64, 32, 32), (2, 3, 50)]
)
@pytest.mark.parametrize("pixels", [16, 400, 4624])
def test_frames_fit(shape, pixels):
    frames = frames_of(torch.rand(2, *shape), pixels)
    assert len(frames) == 2
    assert frames.shape[1] * frames.shape[2] <= 4 * pixels
    assert frames.isfinite().any()


def test_values_that_are_not_finite_are_empty():
    levels = quantised(torch.tensor([[0.0, 1.0, float("nan"), float("inf")]]), 0, 1)
    assert levels.tolist() == [[0, 254, EMPTY, EMPTY]]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("ends", [(0.1, 0.10001), (1, 2), (1e-9, 1e9), (1e-12, 3), (5, 5000)])
def test_ticks_are_few_and_within(ends, log):
    found = ticks(*ends, log)
    assert 1 <= len(found) <= 8
    assert all(ends[0] * 0.999 <= value <= ends[1] * 1.001 for value in found)


def test_charts_draw_what_is_finite_and_say_so():
    nan, inf = float("nan"), float("inf")
    line = Line("<a>", [1, 2, 3, 4], [1.0, nan, inf, 3.0])
    drawn = str(svg(Chart("A & B", "x", [line])))
    (path,) = re.findall(r'polyline class="s0 line" points="([^"]*)"', drawn)
    assert len(path.split()) == 2
    assert "&lt;a&gt;: first 1, last 3" in drawn
    assert "A &amp; B" in drawn
    assert "nan" not in drawn
    assert svg(Chart("none", "x", [Line("a", [1], [nan])])) == "<p>No value to draw.</p>"
    assert "polyline" in svg(Chart("log", "x", [Line("a", [1, 2, 3], [0.0, 1e-3, 1e3])], log=True))


def test_every_text_is_escaped():
    blocks = [Text(EVIL), Table(EVIL, [EVIL], [[EVIL]]), Table(EVIL, [EVIL], [[EVIL]], folded=True)]
    text = render(Page(EVIL, EVIL, [Section("one", EVIL, blocks)], EVIL))
    check_page(text)
    assert Parsed(text).said().count("<script>alert(1)</script>") >= 10


# -- colours --


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_enough():
    """As the Web Content Accessibility Guidelines 2.2 compute and ask for it: 4.5 for text."""
    style = (Path(ep.__file__).parent / "report/templates/style.css").read_text()
    themes = [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in re.findall(r":root \{(.*?)\}", style, re.S)]
    assert len(themes) == 3
    light, dark, printed = themes
    for theme in (light, dark, light | printed):
        for text in ("text", "soft", "link"):
            for back in ("back", "panel"):
                assert contrast(theme[text], theme[back]) >= 4.5, (text, back)
        for line in (name for name in theme if re.fullmatch("s[0-7]", name)):
            assert contrast(theme[line], theme["back"]) >= 4.5, line
    for level in ("l1", "l2"):
        assert contrast(light["text"], light[level]) >= 4.5
    for level in ("l3", "l4", "l5"):
        assert contrast("#0d1116", light[level]) >= 4.5
    for level in ("l1", "l2", "l3", "l4", "l5"):
        assert contrast(dark["text"], dark[level]) >= 4.5, level
