"""Deliberate one-line bugs in the energy and in settling. Each must be noticed by the tests named beside it."""

import importlib

import pytest
from mutations import PACKAGE, TESTS

SETTLING, NETWORK = "settling/test_settling.py", "energy/test_network.py"
GRADIENTS = "learning/test_gradients.py"
CONFORMANCE = "energy/test_conformance.py"
EQUILIBRIUM = "learning/test_equilibrium.py"
SOLVERS = "settling/test_solvers.py"
ERRORS, PREDICTION = "settling/test_error_coordinates.py", "energy/test_prediction.py"

# file, what it says, what the bug makes of it, and the tests that must fail
BUGS = {
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
        "state = state | landscape.step(state, group)",
        "state = {**state, **landscape.step(landscape.zeros(), group)}",
        f"{SETTLING}::test_sweeps_come_to_rest[synchronous]",
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
    "a response that forgets one colour": (
        "settling/conjugate_gradients.py",
        "along = along | incident(free, frontier).step(along, eliminated)",
        "along = along | {n: start[n] for n in eliminated}",
        "learning/test_infinitesimal.py::test_it_equals_the_exact_gradient[dense]",
    ),
    "a contrast without its product of displacements": (
        "energy/couplings.py",
        "linearly(at.jvp, pre_move) * (post + post_move)",
        "linearly(at.jvp, pre_move) * post",
        f"{GRADIENTS}::test_the_two_forms_agree[dense-contrastive]",
    ),
    "a residual that flatters": (
        "settling/solvers.py",
        "(c.abs() if c.is_complex() else c.abs_()).amax(example_dims(c))",
        "(c.abs() if c.is_complex() else c.abs_()).amin(example_dims(c))",
        f"{SOLVERS}::test_the_residual_is_the_last_sweeps_largest_change[1-synchronous]",
    ),
    "dropout without its rescaling": (
        "energy/landscape.py",
        "partial(torch.mul, mask / self._retained(n))",
        "partial(torch.mul, mask)",
        f"{NETWORK}::test_dropout_silences_units_and_stays_an_energy",
    ),
    "an inner product in which dropout does not count": (
        "energy/landscape.py",
        "sum_per_example(scaled[name] * b[name]) / self._retained(name)",
        "sum_per_example(scaled[name] * b[name])",
        "learning/test_infinitesimal.py::test_conjugate_gradients_end_in_as_few_iterations_where_nodes_drop_out[dropout0]",
    ),
    "an inner product in which feedback gains do not count": (
        "settling/conjugate_gradients.py",
        "curvature = landscape.inner(p, image, weights)",
        "curvature = landscape.inner(p, image)",
        "learning/test_infinitesimal.py::test_conjugate_gradients_with_feedback_gains_give_the_exact_gradient[dense]",
    ),
    "a first sweep that hears what is still zero": (
        "settling/directed.py",
        "if next(counting):",
        "if True:",
        "settling/test_directed.py::test_the_first_sweep_asks_for_no_drive_of_a_node_at_zero",
    ),
    "a slope that counts units at the end of their range": (
        "energy/units.py",
        "hardtanh_backward(slope, state, self.low, self.high)",
        "hardtanh_backward(slope, state, self.low - 1, self.high + 1)",
        "energy/test_units.py::test_the_slope_at_a_state_is_that_at_its_drive",
    ),
    "a bias that every example teaches alike": (
        "energy/terms.py",
        "((expand_like(each, move) * move).sum_to_size(self.strength.shape),)",
        "(move.sum_to_size(self.strength.shape),)",
        "learning/test_infinitesimal.py::test_weights_dropout_and_a_loss_downstream_go_through_it",
    ),
    "16 bits in more than the messages": (
        "learning/equilibrium.py",
        "return data.to(parameter.dtype) if torch.is_autocast_enabled(data.device.type) else data",
        "return data",
        "contract/test_given.py::test_states_keep_the_networks_precision_under_autocast",
    ),
    "nodes of a sweep all see the old state": (
        "settling/sweeps.py",
        "state = state | landscape.step(state, group)\n    return state",
        "landscape.step(state, group)\n    return state | landscape.step(state, [n for g in groups for n in g])",
        "settling/test_sweeps.py::test_a_synchronous_sweep_advances_two_interleaved_alternating_ones[2]",
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
        "return post if self.feedback_gain == 1 else self.feedback_gain * post",
        "return post",
        f"{EQUILIBRIUM}::test_estimates_undo_the_feedback_gains[contrastive]",
    ),
    "feedback gains that are not undone": (
        "energy/gains.py",
        "way = found[node] * term.gain(node) / term.gain(other)",
        "way = found[node]",
        f"{EQUILIBRIUM}::test_estimates_undo_the_feedback_gains[contrastive]",
    ),
    "examples at rest move on": (
        "settling/solvers.py",
        "moving = moving & ~stopping",
        "pass",
        f"{SOLVERS}::test_until_rest_goes_on_with_what_moves_and_returns_every_example_in_its_place",
    ),
    "examples that came to rest out of their order": (
        "settling/solvers.py",
        "joined([part for _, part in done]).select(order)",
        "joined([part for _, part in done])",
        f"{SOLVERS}::test_until_rest_goes_on_with_what_moves_and_returns_every_example_in_its_place",
    ),
    "nodes that are settled before a force has moved them": (
        "settling/solvers.py",
        "torch.maximum(max(0.1, tolerance) * travelled, noise))[1:].all(0)",
        "torch.inf * last.clamp_min(1))[1:].all(0)",
        "settling/test_status.py::test_a_deep_chain_is_settled_only_where_its_gradient_is_right",
    ),
    "a signal that crosses the network in one sweep": (
        "settling/crossing.py",
        "sweeps += 1",
        "sweeps = 1",
        "settling/test_crossing.py",
    ),
    "an over-relaxation that shrinks where it should grow": (
        "settling/solvers.py",
        "(2 / (1 + (1 - mu_squared).sqrt()))",
        "(2 / (1 + (1 + mu_squared).sqrt()))",
        "settling/test_over_relaxation.py::test_the_nearer_the_brink_the_more_it_saves[0.9]",
    ),
    "units over-relaxed out of their range": (
        "energy/units.py",
        "expand_like(rate, state)).clamp_(self.low, self.high)",
        "expand_like(rate, state))",
        "settling/test_over_relaxation.py::test_no_factor_below_2_climbs_the_energy_of_clipped_units",
    ),
    "a strided convolution whose transpose is too small": (
        "energy/maps.py",
        "n - ((g - 1) * s - 2 * p + d * (k - 1) + 1)",
        "0 * n * g * k * s * p * d",
        "energy/test_conformance.py::test_convolutions",
    ),
    "examples that all count the same to a kernel": (
        "energy/maps.py",
        "z = vjp((expand_like(each, post) * post).to(bits))",
        "z = vjp(post.to(bits))",
        "energy/test_conformance.py::test_convolutions",
    ),
    "a kernel that learns from feedback without its gain": (
        "energy/couplings.py",
        "down * self.synapse.feedback_gain * derivative(pre_move, post)",
        "down * derivative(pre_move, post)",
        f"{CONFORMANCE}::test_couplings",
    ),
    "states that leave their errors behind": (
        "settling/error_coordinates.py",
        "(at + errors[node] if node in errors else at)",
        "at",
        f"{ERRORS}::test_one_pass_takes_a_force_through_all_layers[5]",
    ),
    "errors that no layer sends down": (
        "settling/error_coordinates.py",
        "if own[after].nodes[0] == node",
        "if False",
        f"{ERRORS}::test_one_pass_takes_a_force_through_all_layers[5]",
    ),
    "a nudge's parabola that errors do not feel": (
        "settling/error_coordinates.py",
        "errors[node] = (errors[node] + (stiffness - 1) * error) / stiffness",
        "errors[node] = errors[node] + 0 * error",
        f"{ERRORS}::test_under_a_squared_error_one_pass_goes_to_the_minimum_over_the_output[0.5]",
    ),
    "a forward pass that is at rest under any term": (
        "settling/starts.py",
        "if rest.terms:",
        "if False:",
        f"{ERRORS}::test_over_relaxation_and_a_forward_pass_under_a_nudge_are_refused",
    ),
    "an exact gradient by sweeps that are not stable": (
        "learning/references.py",
        "moved, loss = self.sweep(rebuilt, at)",
        "moved, loss = synchronous(rebuilt, at)",
        f"{ERRORS}::test_the_exact_gradient_at_the_forward_pass_is_that_of_backpropagation",
    ),
    "a recorded evaluation of another state": (
        "energy/prediction.py",
        "self.pre is pre and",
        "",
        f"{PREDICTION}::test_a_recorded_evaluation_is_of_that_state_alone",
    ),
    "a recorded evaluation of a state that has changed in place": (
        "energy/prediction.py",
        "self.version == pre._version and",
        "",
        f"{PREDICTION}::test_a_recorded_evaluation_is_of_that_state_alone",
    ),
    "a prediction by data whose examples keep their order": (
        "energy/prediction.py",
        "if not rest and torch.equal(examples, torch.arange(len(self.value), device=examples.device).repeat(copies)):",
        "if not rest:",
        f"{PREDICTION}::test_selected_examples_are_predicted_by_their_own_data",
    ),
    "another state of a batch that counts as a copy": (
        "energy/prediction.py",
        "if rest or not all(torch.equal(part, source.at) for part in pre.split(len(source.at))):",
        "if rest:",
        f"{PREDICTION}::test_a_recorded_evaluation_is_of_that_state_alone",
    ),
    "phases that all count the same to a prediction": (
        "energy/prediction.py",
        "(expand_like(each, error) * error)",
        "(expand_like(each, error) * 0 + error)",
        f"{ERRORS}::test_with_one_pass_and_a_small_nudge_it_is_backpropagation[CrossEntropy]",
    ),
    "an activation whose slope feedback forgets": (
        "energy/maps.py",
        "lambda post: at.vjp(self.activation.compliance(drive, post)),",
        "at.vjp,",
        f"{PREDICTION}::test_activated_maps_keep_the_contract_of_maps",
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
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_suite_notices(fork_server, tmp_path, bug):
    fork_server.notices(tmp_path, *BUGS[bug])


FILES = sorted(path.stem for path in TESTS.glob("test_mutations*.py"))


def bugs_of(name):
    return importlib.import_module(name).BUGS


@pytest.mark.long  # the suite has these tests
@pytest.mark.parametrize("name", FILES)
def test_without_a_bug_the_same_tests_pass(fork_server, tmp_path, name):
    fork_server.passes(tmp_path, sorted({bug[-1] for bug in bugs_of(name).values()}))


@pytest.mark.parametrize("name", FILES)
def test_every_bug_is_one_of_the_present_code(name):
    """Of all bugs, as not each is tried each time."""
    for bug, (file, right, wrong, tests) in bugs_of(name).items():
        assert (PACKAGE / file).read_text().count(right) == 1, bug
        assert right != wrong, bug
        path, _, case = tests.partition("::")
        assert not case or f"def {case.partition('[')[0]}(" in (TESTS / path).read_text(), bug


@pytest.mark.parametrize(
    ("bug", "said"),
    [
        (("energy/losses.py", "- softmax(scores, 1)", "- undefined", f"{CONFORMANCE}::test_losses"), "NameError"),
        (("errors.py", "class InputError(", "class Missing(", f"{CONFORMANCE}::test_losses"), "no test ran"),
    ],
    ids=["an error in the code", "an error in importing it"],
)
def test_an_error_is_no_assertion(fork_server, tmp_path, bug, said):
    with pytest.raises(AssertionError, match=said):
        fork_server.notices(tmp_path, *bug)
