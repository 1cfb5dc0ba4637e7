"""Deliberate one-line bugs in learning, diagnostics and training. Each must be noticed by the tests named beside it."""

import pytest

GRADIENTS = "learning/test_gradients.py"
HOLOMORPHIC = "learning/test_holomorphic.py"
HEBBIAN = "learning/test_contrastive_hebbian.py"
ASYMMETRIC = "learning/test_asymmetric.py"
EQUILIBRIUM = "learning/test_equilibrium.py"
PREDICTIVE = "learning/test_predictive.py"

# file, what it says, what the bug makes of it, and the tests that must fail
BUGS = {
    "a symmetric stencil of unequal sides": (
        "learning/stencils.py",
        "Stencil((beta, -beta), (0.5 / beta, -0.5 / beta))",
        "Stencil((beta, -beta / 3), (0.75 / beta, -0.75 / beta))",
        f"{GRADIENTS}::test_bias_falls_at_the_order_of_the_stencil[dense-symmetric-2]",
    ),
    "a stencil without the half of 1/(2 beta) passes": (
        "learning/stencils.py",
        " or abs(self.moment(1) - 1) > 1e-9",
        "",
        f"{GRADIENTS}::test_a_table_that_is_no_derivative_is_refused",
    ),
    "swap the phases": (
        "learning/estimators.py",
        "numbers([phase.weight for phase in phases], ",
        "numbers([phase.weight for phase in reversed(phases)], ",
        f"{GRADIENTS}::test_a_block_inside_an_ordinary_model[dense]",
    ),
    "sum for mean over the batch": (
        "learning/estimators.py",
        "shares * cost.weight[examples] / batch",
        "shares * cost.weight[examples]",
        f"{GRADIENTS}::test_a_block_inside_an_ordinary_model[dense]",
    ),
    "a rule that reads the nudged presynaptic state": (
        "learning/forms.py",
        "free | {node: moved[node]}",
        "moved",
        f"{GRADIENTS}::test_the_two_forms_agree[dense-vector_field]",
    ),
    "feedback weights learn by themselves": (
        "learning/rules.py",
        "found[id(up)] = found[id(down)] = (found[id(up)] + found[id(down)]) / 2",
        "found[id(down)] = (found[id(up)] + found[id(down)]) / 2",
        f"{GRADIENTS}::test_kolen_pollack_gives_both_weights_the_mean_of_their_estimates",
    ),
    "a correction of the other sign": (
        "settling/displacement.py",
        "(self.back.drive(node, *moves) - self.forth.drive(node, *moves))",
        "(self.forth.drive(node, *moves) - self.back.drive(node, *moves))",
        f"{ASYMMETRIC}::test_it_is_exact_at_any_asymmetry_and_the_error_falls_as_beta_squared"
        "[turned-asymmetric states-60]",
    ),
    "a transpose that forgets the feedback gain": (
        "energy/terms.py",
        "self.down.scaled(self.feedback_gain)",
        "self.down",
        f"{ASYMMETRIC}::test_feedback_gains_need_no_amplification[asymmetric displacements-0.1]",
    ),
    "adjoints are amplified": (
        "learning/forms.py",
        "if self.corrected:\n            return dict",
        "if False:\n            return dict",
        f"{ASYMMETRIC}::test_feedback_gains_need_no_amplification[asymmetric displacements-2.0]",
    ),
    "both copies of a dyad descend": (
        "learning/dyadic.py",
        "return -1 if node.startswith(TWIN) else 1",
        "return 1",
        f"{ASYMMETRIC}::test_it_is_exact_at_any_asymmetry_and_the_error_falls_as_beta_squared[turned-dyadic states-0]",
    ),
    "nudged phases start from rest": (
        "learning/estimators.py",
        "cost, betas, select(start, every.repeat(len(betas))))",
        "cost, betas, select(landscape.zeros(), every.repeat(len(betas))))",
        f"{EQUILIBRIUM}::test_nudged_phases_start_from_the_free_state[0.001-ordinary]",
    ),
    "a clamp that yields to its drive": (
        "learning/teachers.py",
        "return torch.zeros_like(scale), scale",
        "return torch.ones_like(scale), scale",
        f"{HEBBIAN}::test_coupled_learning_holds_the_output_on_the_way_to_the_target[difference]",
    ),
    "presynaptic activity of the wrong phase": (
        "learning/forms.py",
        "value + share * self.displacement[node]",
        "value + self.displacement[node]",
        f"{HEBBIAN}::test_each_half_reads_its_own_presynaptic_activity[0.0-difference]",
    ),
    "an example's weight loses its sign": (
        "learning/estimators.py",
        "shares * cost.weight[examples]",
        "shares * cost.weight[examples].abs()",
        f"{EQUILIBRIUM}::test_an_example_of_weight_minus_one_unlearns_in_the_limit[contrastive]",
    ),
    "the data learn nothing": (
        "learning/equilibrium.py",
        "return [laid_out_as(leaf, next(found)) if leaf.requires_grad else None for leaf in leaves]",
        "return [next(found) * (leaf is not leaves[0]) if leaf.requires_grad else None for leaf in leaves]",
        f"{EQUILIBRIUM}::test_the_data_receive_their_exact_gradient[learning]",
    ),
    "exact at another equilibrium than the estimator's": (
        "diagnostics/references.py",
        "return exact_gradients(network, settled.state, x, y)",
        "return exact_gradients(network, {n: 0 * s for n, s in settled.state.items()}, x, y)",
        "diagnostics/test_comparison.py::test_the_reference_is_taken_at_the_estimators_own_equilibrium",
    ),
    "a machine told from itself": (
        "diagnostics/machine.py",
        "made = machine.as_made()",
        "made = machine",
        "diagnostics/test_machine.py::test_each_fault_is_told_by_its_law[ReadSpread]",
    ),
    "an error split as if it fell with the root of beta": (
        "diagnostics/bias.py",
        "((big / small) ** 2 - 1)",
        "(big / small - 1)",
        "diagnostics/test_machine.py::test_an_error_is_split_in_two",
    ),
    "backpropagation's steps first to last": (
        "diagnostics/through_time.py",
        "for leaf in reversed(leaves)]",
        "for leaf in leaves]",
        "diagnostics/test_through_time.py::test_partial_sums_are_those_of_truncated_backpropagation[chain]",
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
    "a nudge that turns without its weight": (
        "learning/stencils.py",
        "turn.conjugate() / (points * beta)",
        "1 / (points * beta)",
        f"{HOLOMORPHIC}::test_the_error_of_a_lagging_state_falls_with_the_square_of_the_steps[difference]",
    ),
    "a turning nudge that resets the state": (
        "learning/oscillating.py",
        "at = settled.state",
        "at = self._form(landscape).start(free.state) if settled else at",
        f"{HOLOMORPHIC}::test_the_error_of_a_lagging_state_falls_with_the_square_of_the_steps[difference]",
    ),
    "dropout in evaluation": (
        "learning/equilibrium.py",
        "self.network.draw_masks(self.batch) if model.training else None",
        "self.network.draw_masks(self.batch)",
        f"{EQUILIBRIUM}::test_dropout_draws_in_training_alone_and_scales_as_dropout_does",
    ),
    "the nudge's onset is no part of a continual update": (
        "learning/continual.py",
        "before, state = Phase(beta, -weight, reading), swept.state",
        "before, state = Phase(0.0, -weight, reading), swept.state",
        "learning/test_continual.py::test_it_tends_to_equilibrium_propagation[dense-2_0]",
    ),
    "sweeps do not feel the weights that moved": (
        "learning/continual.py",
        "move([-self.rate * t for t in total])",
        "move([0 * t for t in total])",
        "learning/test_continual.py::test_a_step_of_gradient_descent_ends_where_the_weights_written_out_do",
    ),
    "parameters that relax at another rate than they report": (
        "learning/agnostic.py",
        "-self.epsilon * (high - low) * each",
        "-self.epsilon * each",
        "learning/test_agnostic.py::test_gradient_descent_lands_where_the_knobs_hold_the_parameters_in_balance[dense-optimistic]",
    ),
    "dual states on the wrong sides of their mean": (
        "learning/dual.py",
        "low = drives[node] - self.alpha * pushes[node]",
        "low = drives[node] - (1 - self.alpha) * pushes[node]",
        "learning/test_dual.py::test_it_is_its_equations_written_out[1-0.0]",
    ),
    "silenced units count as jacobian_asymmetry": (
        "learning/penalties.py",
        "linear.masked({node: linear.drive(by, node) for node in linear.nodes})",
        "{node: linear.drive(by, node) for node in linear.nodes}",
        "learning/test_penalties.py::test_nor_has_one_whose_units_are_silenced",
    ),
    "a penalty on how quickly a network settles": (
        "learning/penalties.py",
        "return -coupled / own",
        "return coupled / own",
        "learning/test_rayleigh_penalty.py::test_it_is_the_rayleigh_quotient_of_the_sweep",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_suite_notices(fork_server, tmp_path, bug):
    fork_server.notices(tmp_path, *BUGS[bug])
