"""Deliberate one-line bugs in circuits. Each must be noticed by the tests named beside it."""

import pytest

CIRCUITS, RECIPES = "physics/test_circuits.py", "training/test_resistive_recipes.py"
KIRCHHOFF = f"{CIRCUITS}::test_kirchhoffs_current_law_holds_and_no_diode_carries_current_the_wrong_way"
ONE_VISIT = f"{CIRCUITS}::test_an_output_goes_to_its_minimum_under_any_nudge_in_one_visit"
NETLIST = "physics/test_ngspice.py::test_the_elements_are_counted"

# file, what it says, what the bug makes of it, and the tests that must fail
BUGS = {
    "stiffness counted twice": (
        "energy/landscape.py",
        "unit.response(drive + stiffness * state, stiffness)",
        "unit.response(drive + stiffness * state, 2 * stiffness)",
        KIRCHHOFF,
    ),
    "stiffness left out of the drive": (
        "energy/landscape.py",
        "unit.response(drive + stiffness * state, stiffness)",
        "unit.response(drive, stiffness)",
        KIRCHHOFF,
    ),
    "resistors that are stiff at the wrong end": (
        "physics/resistors.py",
        "(self.at_pre, self.at_post)[i]",
        "(self.at_pre.mean() + 0 * self.at_pre, self.at_post)[i]",
        f"{CIRCUITS}::test_resistors_conform",
    ),
    "a nudge without its stiffness": (
        "energy/losses.py",
        "loss.holomorphic, stiff and loss.quadratic",
        "loss.holomorphic, False",
        ONE_VISIT,
    ),
    "a negative nudge without its stiffness": (
        "energy/losses.py",
        "expand_like(self.scale.real, like)",
        "expand_like(self.scale.real.clamp_min(0), like)",
        ONE_VISIT,
    ),
    "a negative nudge that turns a minimum into a maximum": (
        "energy/landscape.py",
        "torch.where(total > 0, total, outweighed)",
        "total",
        f"{CIRCUITS}::test_a_nudge_that_outweighs_the_resistors_is_not_taken_for_settled",
    ),
    "an amplifier that passes currents back undivided": (
        "physics/resistors.py",
        "return ((u @ self.conductance.T - v * self.at_pre) / self.resistors.voltage_gain)",
        "return (u @ self.conductance.T - v * self.at_pre)",
        f"{CIRCUITS}::test_an_amplifier_passes_voltages_on_and_currents_back",
    ),
    "an amplifier that learning does not undo": (
        "physics/resistors.py",
        "return self.voltage_gain**-2 if node",
        "return 1.0 if node",
        f"{CIRCUITS}::test_circuits_with_amplifiers_learn_too",
    ),
    "sources of one sign": (
        "physics/drn.py",
        '("inverted_", -input_gain)',
        '("inverted_", input_gain)',
        KIRCHHOFF,
    ),
    "diodes all of one kind": (
        "physics/diodes.py",
        "free[:, first:].clamp(max=0)",
        "free[:, first:].clamp(min=0)",
        KIRCHHOFF,
    ),
    "a junction that is solved to a few digits": (
        "physics/diodes.py",
        "for _ in range(STEPS):",
        "for _ in range(2):",
        f"{CIRCUITS}::test_a_junctions_voltage_balances_its_current",
    ),
    "conductances below 0": (
        "physics/resistors.py",
        "part.conductance.clamp_(min=0)",
        "part.conductance.clamp_(min=-1)",
        f"{CIRCUITS}::test_keep_passive_sets_what_is_negative_to_0_and_nothing_else",
    ),
    "a netlist of resistances for conductances": (
        "physics/netlist.py",
        "{1 / conductance!r}",
        "{conductance!r}",
        NETLIST,
    ),
    "a netlist whose diodes are the wrong way round": (
        "physics/netlist.py",
        "{'0 ' + place if above else place + ' 0'}",
        "{place + ' 0' if above else '0 ' + place}",
        NETLIST,
    ),
    "a run whose conductances leave the physics": (
        "recipes/resistive.py",
        "estimator, keep_passive)",
        "estimator)",
        f"{RECIPES}::test_the_settings_are_the_releases",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_suite_notices(fork_server, tmp_path, bug):
    fork_server.notices(tmp_path, *BUGS[bug])


def test_without_a_bug_the_same_tests_pass(fork_server, tmp_path):
    fork_server.passes(tmp_path, sorted({bug[-1] for bug in BUGS.values()}))
