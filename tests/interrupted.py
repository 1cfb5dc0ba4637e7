"""A run that is interrupted after a batch and resumed, beside the same run left alone."""

import signal
from pathlib import Path

import torch

from eqprop.cli import main
from eqprop.files import load
from eqprop.training.loop import Trainer
from eqprop.training.report import Files

ALONE = ["--report_seconds", "0"]
"""Options of a training whose weights alone are asked for."""


def check_same_bits(monkeypatch, command, at):
    """``command``: of a training, without its folder; ``at``: the batch after which it is interrupted."""
    monkeypatch.setattr(Files, "draw", lambda self: None)
    assert main([*command, *ALONE, "--out", "whole"]) == 0
    step, done = Trainer._step, []

    def interrupted(self, x, y):
        step(self, x, y)
        done.append(1)
        if len(done) == at:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    assert main([*command, *ALONE, "--out", "cut"]) == 130
    assert main(["resume", "cut", *ALONE]) == 0
    whole, cut = (load(Path(name), "last")[0] for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name
