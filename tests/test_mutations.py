"""Deliberate one-line bugs. Each must be noticed by the tests named beside it."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import eqprop

TESTS = Path(__file__).parent
GRADIENTS, CONFORMANCE = "learning/test_gradients.py", "energy/test_conformance.py"
HOLOMORPHIC = "learning/test_holomorphic.py"
SETTLING, NETWORK = "settling/test_settling.py", "energy/test_network.py"
HEBBIAN = "learning/test_contrastive_hebbian.py"
EQUILIBRIUM, SOLVERS = "learning/test_equilibrium.py", "settling/test_solvers.py"
PREDICTIVE = "learning/test_predictive.py"

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
        "numbers([weight for _, weight in phases], ",
        "numbers([weight for _, weight in reversed(phases)], ",
        f"{GRADIENTS}::test_a_block_inside_an_ordinary_model",
    ),
    "forget the transpose": (
        "energy/maps.py",
        "s @ self.weight, post",
        "s @ self.weight * 0 + s.sum(1, True), post",
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
        "- softmax(scores, 1)",
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
        "along = along | free.relax(along, others)",
        "along = along | {n: start[n] for n in others}",
        "learning/test_infinitesimal.py::test_it_equals_the_exact_gradient",
    ),
    "a contrast without its product of displacements": (
        "energy/couplings.py",
        "linearly(carried.push, pre_move) * (post + post_move)",
        "linearly(carried.push, pre_move) * post",
        f"{GRADIENTS}::test_the_two_forms_agree",
    ),
    "a residual that flatters": (
        "settling/solvers.py",
        "(after[node] - before[node]).abs().flatten(1).amax(1)",
        "(after[node] - before[node]).abs().flatten(1).amin(1)",
        f"{SOLVERS}::test_the_residual_is_the_last_sweeps_largest_change",
    ),
    "dropout without its rescaling": (
        "energy/network.py",
        "scale = self.masks[name] / (1 - self.nodes[name].dropout)",
        "scale = self.masks[name]",
        NETWORK,
    ),
    "nudged phases start from rest": (
        "learning/estimators.py",
        "cost, betas, take(start, every.repeat(len(betas))))",
        "cost, betas, take(landscape.rest(), every.repeat(len(betas))))",
        f"{EQUILIBRIUM}::test_nudged_phases_start_from_the_free_state",
    ),
    "nodes of a sweep all see the old state": (
        "settling/sweeps.py",
        "state = state | landscape.relax(state, group)\n    return state",
        "landscape.relax(state, group)\n    return state | landscape.relax(state, [n for g in groups for n in g])",
        "settling/test_sweeps.py::test_a_synchronous_sweep_advances_two_interleaved_alternating_ones",
    ),
    "winners of a state that has changed in place": (
        "energy/couplings.py",
        " or self._key[1:] != key[1:]",
        "",
        f"{SOLVERS}::test_a_state_changed_in_place_is_seen",
    ),
    "a unit that wins two windows hears one": (
        "energy/pooling.py",
        "flat.scatter_add(2, winners.flatten(2), post.flatten(2))",
        "flat.scatter(2, winners.flatten(2), post.flatten(2))",
        "energy/test_conformance.py::test_convolutions",
    ),
    "feedback gain forgotten": (
        "energy/couplings.py",
        "return feedback if self.feedback_gain == 1 else self.feedback_gain * feedback",
        "return feedback",
        f"{EQUILIBRIUM}::test_estimates_undo_the_feedback_gains",
    ),
    "feedback gains that are not undone": (
        "energy/network.py",
        "way = found[node] * term.gain(node) / term.gain(other)",
        "way = found[node]",
        f"{EQUILIBRIUM}::test_estimates_undo_the_feedback_gains",
    ),
    "a clamp that yields to its drive": (
        "learning/teachers.py",
        "return torch.zeros_like(scale), scale",
        "return torch.ones_like(scale), scale",
        f"{HEBBIAN}::test_coupled_learning_holds_the_output_on_the_way_to_the_target",
    ),
    "presynaptic activity of the wrong phase": (
        "learning/forms.py",
        "value + share * change[node]",
        "value + change[node]",
        f"{HEBBIAN}::test_each_half_reads_its_own_presynaptic_activity",
    ),
    "examples at rest move on": (
        "settling/solvers.py",
        "{node: where(moving, new.state[node], old) for node, old in present.state.items()},",
        "new.state,",
        f"{SOLVERS}::test_until_rest_goes_on_with_what_moves_and_returns_every_example_in_its_place",
    ),
    "examples that came to rest out of their order": (
        "settling/solvers.py",
        "present]).taken(order)",
        "present])",
        f"{SOLVERS}::test_until_rest_goes_on_with_what_moves_and_returns_every_example_in_its_place",
    ),
    "an example's weight loses its sign": (
        "learning/estimators.py",
        "repeat_interleave(batch) * cost.weight[examples]",
        "repeat_interleave(batch) * cost.weight[examples].abs()",
        f"{EQUILIBRIUM}::test_an_example_of_weight_minus_one_unlearns_in_the_limit",
    ),
    "a strided convolution whose transpose is too small": (
        "energy/maps.py",
        "n - ((g - 1) * s - 2 * p + d * (k - 1) + 1)",
        "0 * n * g * k * s * p * d",
        "energy/test_conformance.py::test_convolutions",
    ),
    "the data learn nothing": (
        "learning/equilibrium.py",
        "return x.detach().requires_grad_(x.requires_grad),",
        "return x.detach(),",
        f"{EQUILIBRIUM}::test_the_data_receive_their_exact_gradient",
    ),
    "exact at another equilibrium than the estimator's": (
        "diagnostics/references.py",
        "return exact_gradients(network, settled.state, x, y)",
        "return exact_gradients(network, {n: 0 * s for n, s in settled.state.items()}, x, y)",
        "diagnostics/test_comparison.py::test_the_reference_is_taken_at_the_estimators_own_equilibrium",
    ),
    "backpropagation's steps first to last": (
        "diagnostics/through_time.py",
        "for leaf in reversed(leaves)]",
        "for leaf in leaves]",
        "diagnostics/test_through_time.py::test_partial_sums_are_those_of_truncated_backpropagation",
    ),
    "a prediction fitted to what it predicts": (
        "learning/predictive.py",
        "values[..., learnt:].mean(-1, keepdim=True)",
        "values.mean(-1, keepdim=True)",
        f"{PREDICTIVE}::test_a_prediction_does_not_look_at_what_it_predicts",
    ),
    "a teacher who comes a sweep late": (
        "learning/predictive.py",
        "if done in moments:\n            passed[done] = state",
        "if done - 1 in moments:\n            passed[done - 1] = state",
        f"{PREDICTIVE}::test_the_update_is_the_papers",
    ),
    "a sign that is never put back": (
        "training/constraints.py",
        "(parameter * signs < 0)",
        "(parameter * signs < -1)",
        "training/test_constraints.py::test_only_what_has_the_wrong_sign_moves",
    ),
    "imaginary parts of the wrong sign": (
        "energy/holomorphic.py",
        "torch.complex(real.to(precision), imaginary.to(precision))",
        "torch.complex(real.to(precision), -imaginary.to(precision))",
        f"{CONFORMANCE}::test_couplings",
    ),
    "the conjugate of a complex derivative": (
        "energy/holomorphic.py",
        "[0].conj()",
        "[0]",
        f"{CONFORMANCE}::test_couplings",
    ),
    "a nudge that turns without its weight": (
        "learning/stencils.py",
        "turn.conjugate() / (points * beta)",
        "1 / (points * beta)",
        f"{HOLOMORPHIC}::test_the_turning_nudge_is_the_holomorphic_estimate_where_each_step_settles",
    ),
    "a turning nudge that resets the state": (
        "learning/turning.py",
        "at = settled.state",
        "at = self._form(landscape).start(free.state) if settled else at",
        f"{HOLOMORPHIC}::test_the_error_of_a_lagging_state_falls_with_the_square_of_the_steps",
    ),
    "dropout in evaluation": (
        "learning/equilibrium.py",
        "network.draw_masks(len(data)) if self.training else None",
        "network.draw_masks(len(data))",
        f"{EQUILIBRIUM}::test_dropout_draws_in_training_alone_and_scales_as_dropout_does",
    ),
    "the nudge's onset is no part of a continual update": (
        "learning/continual.py",
        "last, state = beta, swept.state",
        "last, state = 0.0, swept.state",
        "learning/test_continual.py::test_it_tends_to_equilibrium_propagation",
    ),
    "sweeps do not feel the weights that moved": (
        "learning/continual.py",
        "present = landscape.rebuilt()",
        "present = landscape",
        "learning/test_continual.py::test_a_step_of_gradient_descent_ends_where_the_weights_written_out_do",
    ),
    "parameters that relax at another rate than they report": (
        "learning/agnostic.py",
        "-self.epsilon * (high - low) * each",
        "-self.epsilon * each",
        "learning/test_agnostic.py::test_gradient_descent_lands_where_the_knobs_hold_the_parameters_in_balance",
    ),
    "dual states on the wrong sides of their mean": (
        "learning/dual.py",
        "low = drives[node] - self.alpha * pushes[node]",
        "low = drives[node] - (1 - self.alpha) * pushes[node]",
        "learning/test_dual.py::test_it_is_its_equations_written_out",
    ),
    "silenced units count as asymmetry": (
        "learning/homeostasis.py",
        "linear.visible({node: linear.drive(by, node) for node in linear.nodes})",
        "{node: linear.drive(by, node) for node in linear.nodes}",
        "learning/test_homeostasis.py::test_nor_has_one_whose_units_are_silenced",
    ),
}


def run(tests, **environment):
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(str(TESTS / t) for t in tests)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=300)


def with_bug(folder, file, right, wrong, tests):
    copy = folder / "eqprop"
    shutil.copytree(Path(eqprop.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text()
    assert text.count(right) == 1, f"{file} no longer says {right!r} once: bring this bug up to date"
    (copy / file).write_text(text.replace(right, wrong))
    return run([tests], PYTHONPATH=str(folder))


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """All of them, two at a time; and the same tests on the package as it is, under "no bug"."""
    with ThreadPoolExecutor(2) as pool:
        jobs = {"no bug": pool.submit(run, sorted({bug[-1] for bug in BUGS.values()}))}
        jobs |= {name: pool.submit(with_bug, tmp_path_factory.mktemp("bug"), *bug) for name, bug in BUGS.items()}
        yield jobs
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("bug", BUGS)
def test_the_suite_notices(running, bug):
    found = running[bug].result()
    assert found.returncode == 1, f"no test noticed, or none ran:\n{found.stdout[-2000:]}{found.stderr[-500:]}"


def test_without_a_bug_the_same_tests_pass(running):
    """Else a bug would seem noticed where the tests fail anyway."""
    found = running["no bug"].result()
    assert found.returncode == 0, found.stdout[-2000:]
