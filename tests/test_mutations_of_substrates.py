"""Deliberate one-line bugs in substrates. Each must be noticed by the tests named beside it."""

import pytest

LAWS, FAULTS, WIRES = (f"substrates/test_{name}.py" for name in ("laws", "faults", "wires"))
EXPONENTS = f"{LAWS}::test_the_exponents_of_size_and_beta"

# file, what it says, what the bug makes of it, and the tests that must fail
BUGS = {
    "noise that phases share": (
        "substrates/reading.py",
        "size * self.noise(value, node, reading)",
        "size * self.noise(value, node)",
        f"{EXPONENTS}[noise of each read-centred]",
    ),
    "noise of weights that phases share": (
        "substrates/weights.py",
        "self.noise(w, name, key, reading)",
        "self.noise(w, name, key)",
        f"{EXPONENTS}[weight noise-centred]",
    ),
    "phases in their first order twice": (
        "learning/estimators.py",
        "for beta, weight in reversed(pairs)]",
        "for beta, weight in pairs]",
        f"{LAWS}::test_the_order_a_b_b_a_cancels_a_drift[centred]",
    ),
    "a second free phase on the weights of the first": (
        "learning/estimators.py",
        "if landscape.reading and not betas:",
        "if False:",
        f"{EXPONENTS}[two copies of the weights, order A B B A-one-sided]",
    ),
    "a prediction that is measured twice": (
        "learning/predictive.py",
        "self.teacher, read=True)",
        "self.teacher)",
        "learning/test_predictive.py::test_a_unit_predicts_what_is_measured_of_it_and_each_state_is_measured_once",
    ),
    "nothing goes straight through": (
        "energy/substrate.py",
        "w + ((value.clamp(min=0) if coupling.passive else value) - w).detach()",
        "(value.clamp(min=0) if coupling.passive else value)",
        f"{FAULTS}::test_the_shipped_check_takes_every_fault",
    ),
    "the same draws for every batch": (
        "substrates/together.py",
        "int(torch.randint(2**62, (), generator=self.generator))",
        "0",
        f"{FAULTS}::test_draws_that_change_come_from_a_generator_that_is_kept",
    ),
    "feedback by the weights of feedforward": (
        "substrates/weights.py",
        "return Synapse.drive(self.downwards[0] if node == self.nodes[0] else self, node, *states)",
        "return Synapse.drive(self, node, *states)",
        f"{EXPONENTS}[feedback that is no transpose-centred]",
    ),
    "an offset that scales with beta": (
        "substrates/nudging.py",
        "return gap + self.size * self",
        "return gap + gap * self.size * self",
        f"{EXPONENTS}[nudge offset-one-sided]",
    ),
    "a slope that is left out of the energy": (
        "substrates/units.py",
        "self.of.potential(state) / slope - offset",
        "self.of.potential(state) - offset",
        f"{FAULTS}::test_the_shipped_check_takes_every_fault[UnitSpread]",
    ),
    "a second circuit that is not drawn anew": (
        "substrates/together.py",
        "second=with_parts(substrate.second, change)",
        "second=substrate.second",
        "substrates/test_ages.py::test_other_machines_differ_in_every_draw",
    ),
    "drives that no converter rounds": (
        "substrates/units.py",
        "self.of.response(nearest(drive, self.drive_size), *more)",
        "self.of.response(drive, *more)",
        f"{EXPONENTS}[converters of drives-centred]",
    ),
    "a mean that begins a sweep early": (
        "settling/solvers.py",
        "if count > self.n - self.last:",
        "if count >= self.n - self.last:",
        "settling/test_solvers.py::test_averaged_is_the_mean_of_the_states_after_the_last_sweeps",
    ),
    "time constants that are all alike": (
        "settling/sweeps.py",
        "(self.rate * (self.spread * draws).exp())",
        "(self.rate * (0 * draws).exp())",
        "settling/test_sweeps.py::test_units_of_different_time_constants_rest_where_all_do",
    ),
    "wires read at their first row": (
        "substrates/wires.py",
        "down[0] = wire",
        "down[-1] = wire",
        f"{WIRES}::test_it_multiplies_as_kirchhoffs_equations_say_and_backwards_by_the_transpose",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_suite_notices(fork_server, tmp_path, bug):
    fork_server.notices(tmp_path, *BUGS[bug])
