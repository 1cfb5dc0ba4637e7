"""Ten deliberate one-line bugs. Each must be noticed by the tests named beside it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import eqprop

TESTS = Path(__file__).parent
GRADIENTS, CONFORMANCE = "learning/test_gradients.py", "energy/test_conformance.py"
SETTLING, NETWORK = "settling/test_settling.py", "energy/test_network.py"

# file, what it says, what the bug makes of it, and the tests that must fail
BUGS = {
    "drop the half of 1/(2 beta)": (
        "learning/stencils.py",
        "Stencil((beta, -beta), (0.5 / beta, -0.5 / beta))",
        "Stencil((beta, -beta), (1 / beta, -1 / beta))",
        f"{GRADIENTS}::test_a_block_inside_an_ordinary_model",
    ),
    "swap the phases": (
        "learning/estimators.py",
        "new_tensor([weight for _, weight in phases])",
        "new_tensor([weight for _, weight in reversed(phases)])",
        f"{GRADIENTS}::test_a_block_inside_an_ordinary_model",
    ),
    "forget the transpose": (
        "energy/maps.py",
        "(post.flatten(1) @ self.weight).view(-1, *self.in_shape)",
        "(post.flatten(1) @ self.weight).view(-1, *self.in_shape) * 0 + post.flatten(1).sum(1, True)",
        f"{CONFORMANCE}::test_other_maps",
    ),
    "a stale state": (
        "energy/couplings.py",
        "self._key[0] is not tensor or",
        "",
        f"{CONFORMANCE}::test_couplings",
    ),
    "nodes of a sweep do not see those before them": (
        "settling/sweeps.py",
        "state = state | landscape.relax(state, group)",
        "state = {**state, **landscape.relax(landscape.rest(), group)}",
        SETTLING,
    ),
    "sum for mean over the batch": (
        "learning/estimators.py",
        ".repeat_interleave(batch) / batch",
        ".repeat_interleave(batch)",
        f"{GRADIENTS}::test_a_block_inside_an_ordinary_model",
    ),
    "nudge the wrong way": (
        "energy/losses.py",
        "return self._values(target, states[0]) - states[0]",
        "return states[0] - self._values(target, states[0])",
        f"{CONFORMANCE}::test_losses",
    ),
    "forget the softmax": (
        "energy/losses.py",
        "- scores.softmax(1)",
        "- scores",
        f"{CONFORMANCE}::test_losses",
    ),
    "a rule that reads the nudged presynaptic state": (
        "learning/forms.py",
        "(moved if n == node else free)[n]",
        "moved[n]",
        f"{GRADIENTS}::test_the_two_forms_agree",
    ),
    "feedback weights learn by themselves": (
        "learning/rules.py",
        "found[id(up)] = found[id(down)] = (found[id(up)] + found[id(down)]) / 2",
        "found[id(down)] = (found[id(up)] + found[id(down)]) / 2",
        f"{GRADIENTS}::test_kolen_pollack_gives_both_weights_the_mean_of_their_estimates",
    ),
    "a response that forgets one colour": (
        "settling/conjugate_gradients.py",
        "return d | scene.relax(start | d, others)",
        "return d | {n: start[n] for n in others}",
        "learning/test_infinitesimal.py::test_it_equals_the_exact_gradient",
    ),
    "a contrast without its product of displacements": (
        "energy/couplings.py",
        "push(pre_move) * (post + post_move)",
        "push(pre_move) * post",
        f"{GRADIENTS}::test_the_two_forms_agree",
    ),
    "a residual that flatters": (
        "settling/solvers.py",
        "(after[node] - before[node]).abs().flatten(1).amax(1)",
        "(after[node] - before[node]).abs().flatten(1).amin(1)",
        SETTLING,
    ),
    "dropout without its rescaling": (
        "energy/network.py",
        "scale = self.masks[name] / (1 - self.nodes[name].dropout)",
        "scale = self.masks[name]",
        NETWORK,
    ),
}


@pytest.mark.parametrize(("file", "right", "wrong", "tests"), BUGS.values(), ids=BUGS.keys())
def test_the_suite_notices(tmp_path, file, right, wrong, tests):
    copy = tmp_path / "eqprop"
    shutil.copytree(Path(eqprop.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text()
    assert text.count(right) == 1, f"{file} no longer says {right!r} once: bring this bug up to date"
    (copy / file).write_text(text.replace(right, wrong))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(TESTS / tests)]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=120)
    assert found.returncode == 1, f"no test noticed, or none ran:\n{found.stdout[-2000:]}{found.stderr[-500:]}"
