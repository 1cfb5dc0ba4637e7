"""Runs of which the weights alone are asked for: one that is interrupted and resumed, beside the same left alone."""

import signal
from pathlib import Path

import torch

from eqprop.cli import main
from eqprop.cli.terminal import Terminal
from eqprop.files import load
from eqprop.training.loop import Trainer
from eqprop.training.report import Files


def without_pages(monkeypatch):
    """Training makes no report and draws no curves, which take longer than a small run; both are tested elsewhere."""
    monkeypatch.setattr(Terminal, "report", lambda *arguments: None)
    monkeypatch.setattr(Files, "draw", lambda self: None)


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
