"""Runs of which the weights alone are asked for: one that is interrupted and resumed, beside the same left alone."""

import signal
from pathlib import Path

import torch

from eqprop.cli import main
from eqprop.cli.terminal import Terminal
from eqprop.files import load
from eqprop.training import report
from eqprop.training.loop import Trainer


def without_curves(monkeypatch):
    """Empty pictures are in the place of curves, which take longer than a small run, and are tested elsewhere."""
    monkeypatch.setattr(report, "write_figure", lambda path, *_, **__: path.touch())


def without_pages(monkeypatch):
    """The same, and training makes no report."""
    monkeypatch.setattr(Terminal, "report", lambda *arguments: None)
    without_curves(monkeypatch)


def check_same_bits(monkeypatch, command, at):
    """``command``: of a training, without its folder; ``at``: the batch after which it is interrupted."""
    without_pages(monkeypatch)
    assert main([*command, "--out", "whole"]) == 0
    step, done = Trainer._step, []

    def interrupted(self, x, y):
        step(self, x, y)
        done.append(1)
        if len(done) == at:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    assert main([*command, "--out", "cut"]) == 130
    assert main(["resume", "cut"]) == 0
    whole, cut = (load(Path(name), "last")[0] for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name
