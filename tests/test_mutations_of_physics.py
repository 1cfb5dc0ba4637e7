"""Deliberate one-line bugs in circuits, oscillators, spins, spikes and costs.

Each must be noticed by the tests named beside it.
"""

import pytest

CIRCUITS, RECIPES = "physics/test_circuits.py", "training/test_resistive_recipes.py"
KIRCHHOFF = f"{CIRCUITS}::test_kirchhoffs_current_law_holds_and_no_diode_carries_current_the_wrong_way"
ONE_VISIT = f"{CIRCUITS}::test_an_output_goes_to_its_minimum_under_any_nudge_in_one_visit"
PHASES, SPINS, SPIKES = "physics/test_phase_oscillators.py", "physics/test_spins.py", "physics/test_spikes.py"
COST, LOCK_IN = "physics/test_cost.py", "learning/test_lock_in.py"
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
    "a lock-in whose turns are not symmetric in time": (
        "learning/oscillating.py",
        "(k + 0.5) / self.points)",
        "k / self.points)",
        f"{LOCK_IN}::test_a_linear_drift_leaves_its_own_size_and_no_more",
    ),
    "readings that are numbered without regard to their order": (
        "learning/oscillating.py",
        "1 + turn * self.points + k",
        "1 + k",
        f"{LOCK_IN}::test_readings_count_on_from_turn_to_turn",
    ),
    "lateral couplings counted twice": (
        "physics/oscillators.py",
        "phases, strength = states[0].flatten(1), self.strength.triu(1)",
        "phases, strength = states[0].flatten(1), 2 * self.strength.triu(1)",
        f"{PHASES}::test_the_energy_is_that_of_the_phases",
    ),
    "a second harmonic of the other sign": (
        "physics/oscillators.py",
        "return self.strength * (2 * states[0]).sin()",
        "return -self.strength * (2 * states[0]).sin()",
        f"{PHASES}::test_couplings_conform",
    ),
    "phases of which the collinear ones are taken for the others": (
        "physics/oscillators.py",
        "phases.cos().abs() < tolerance",
        "phases.sin().abs() < tolerance",
        f"{PHASES}::test_a_nudge_moves_no_phase_that_is_exactly_collinear",
    ),
    "a covariance that is not centred": (
        "physics/spins.py",
        "(fixed - free.mean(fixed)).flatten()",
        "fixed.flatten()",
        f"{SPINS}::test_the_covariance_is_the_gradient_of_the_mean_cost",
    ),
    "odds of a spin for half of its field": (
        "physics/spins.py",
        "torch.sigmoid(2 * fields(landscape, state, node) / temperature)",
        "torch.sigmoid(fields(landscape, state, node) / temperature)",
        f"{SPINS}::test_gibbs_draws_from_the_distribution",
    ),
    "a nudge whose own part is left in the field": (
        "physics/spins.py",
        "found + own * state[node]",
        "found",
        f"{SPINS}::test_a_nudge_is_a_field",
    ),
    "the worst of all reads": (
        "physics/spins.py",
        "many.energy(state).view(-1, batch).argmin(0)",
        "many.energy(state).view(-1, batch).argmax(0)",
        f"{SPINS}::test_the_best_of_ten_reads_of_thirty_sweeps_is_the_ground_state",
    ),
    "derivatives through spins": (
        "physics/spins.py",
        "low, high, continuous = -1.0, 1.0, False",
        "low, high, continuous = -1.0, 1.0, True",
        f"{SPINS}::test_gradients_that_spins_do_not_have_are_refused",
    ),
    "an annealer whose draws no checkpoint keeps": (
        "physics/spins.py",
        """    def generators(self) -> Iterable[torch.Generator]:
        return (self.generator,)

    @torch.no_grad()
    def __call__(self, landscape: Landscape, start: State, memory""",
        """    def generators(self) -> Iterable[torch.Generator]:
        return ()

    @torch.no_grad()
    def __call__(self, landscape: Landscape, start: State, memory""",
        f"{SPINS}::test_an_interrupted_run_of_annealed_spins_ends_with_the_same_bits[1]",
    ),
    "regular spikes that all start at the same phase": (
        "physics/spikes.py",
        "self.window * rate + torch.rand_like(rate)",
        "self.window * rate",
        f"{SPIKES}::test_counts_are_right_on_average",
    ),
    "an event rule of raw spikes": (
        "physics/spikes.py",
        "means = [(f + g) / 2 for f, g in zip(before, traces, strict=True)]",
        "means = spikes",
        f"{SPIKES}::test_the_event_rule_telescopes",
    ),
    "heat without the square of the voltage": (
        "physics/cost.py",
        "table.voltage**2",
        "table.voltage",
        f"{COST}::test_the_example_of_a_resistive_network",
    ),
    "a step that is counted on the model itself": (
        "physics/cost.py",
        "copy.deepcopy(model).train()",
        "model.train()",
        f"{COST}::test_a_step_is_counted_on_its_machine_and_nothing_changes",
    ),
    "sweeps of nudged phases left out of a run": (
        "training/cost.py",
        'row["train_free_sweeps"] + nudged * row["train_nudged_sweeps"]',
        'row["train_free_sweeps"]',
        "training/test_cost_of_runs.py::test_from_python_with_a_table_of_ones_own",
    ),
    "conversions of a state that count as one": (
        "physics/cost.py",
        "sum(units for _, units in self._read.values())",
        "sum(rows for rows, _ in self._read.values())",
        f"{COST}::test_it_counts_what_happens",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_suite_notices(fork_server, tmp_path, bug):
    fork_server.notices(tmp_path, *BUGS[bug])
