"""The library works without the packages of the extra ``cli``, which say how to install them where they are needed."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = {"pillow": "PIL"}
"""Names of distributions -> of their module, where it is not the same with underscores."""


def blocked() -> list[str]:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["cli"]
    names = [re.match(r"[\w-]+", each)[0] for each in wanted]
    return [*(MODULES.get(name, name.replace("-", "_")) for name in names), "shtab"]


def without_extra(code: str) -> subprocess.CompletedProcess:
    """What a process does in which the extra's packages are not installed."""
    start = f"import sys\nfor name in {blocked()}: sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)


def test_the_library_trains_and_loads_without_the_extra(tmp_path):
    done = without_extra(f"""
import eqprop as ep, eqprop.tasks, eqprop.diagnostics, eqprop.testing, torch
torch.manual_seed(0)
network = ep.chain((4,), [ep.DenseLayer(8), ep.DenseLayer(2)], ep.SquaredError)
settle = ep.EquilibriumPropagation(ep.symmetric(0.1), ep.UntilConverged(1e-5, 200), ep.UntilConverged(1e-5, 200))
model = ep.Equilibrium(network, settle)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.rand(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
task = eqprop.tasks.as_task((x, y), batch_size=3)
before = [each.clone() for each in model.parameters()]
for x, y in task.epoch(0):
    model.loss(x, y).backward()
    optimizer.step()
assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
assert eqprop.diagnostics.compare(network, x, y, {{"ep": model.estimator}}).worst().cosine > 0
ep.Pretrained(model).save_pretrained({str(tmp_path)!r})
assert len(ep.load({str(tmp_path)!r}).predict(x)) == 3
""")
    assert done.returncode == 0, done.stderr


def test_the_command_line_says_what_to_install():
    done = without_extra("from eqprop.cli import main\nprint(main(['train']), main(['predict', 'x']))")
    assert done.stdout == "2 2\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all("pip install 'eqprop[cli]'" in line for line in lines)


def test_images_say_what_to_install():
    done = without_extra("import eqprop.tasks\neqprop.tasks.load_images('digits')")
    assert "InputError" in done.stderr
    assert "pip install 'eqprop[cli]'" in done.stderr
