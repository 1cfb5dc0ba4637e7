"""Deliberate one-line bugs in devices and in writing. Each must be noticed by the tests named beside it."""

import pytest

PULSES = "devices/test_pulses.py::test_pulses_are_those_of_aihwkit"
WRITING = "devices/test_writing.py"
TRANSFERS = f"{WRITING}::test_transfers_are_those_of_aihwkit"

# file, what it says, what the bug makes of it, and the tests that must fail
BUGS = {
    "up and down swapped": (
        "devices/cells.py",
        "base, many = torch.where(up, cells.up, -cells.down), counts.abs()",
        "base, many = torch.where(up, cells.down, -cells.up), counts.abs()",
        f"{PULSES}[reram_es]",
    ),
    "up and down swapped where many pulses have a closed form": (
        "devices/pulses.py",
        "base = torch.where(up, cells.up, -cells.down)",
        "base = torch.where(up, cells.down, -cells.up)",
        f"{PULSES}[constant]",
    ),
    "responses of up and down swapped": (
        "devices/pulses.py",
        "return 1 - up * values, 1 + down * values",
        "return 1 - down * values, 1 + up * values",
        f"{PULSES}[soft]",
    ),
    "a reference that is added": (
        "devices/cells.py",
        "return values - self.reference",
        "return values + self.reference",
        f"{PULSES}[soft_reference]",
    ),
    "a positive asymmetry lengthens pulses up too": (
        "devices/cells.py",
        "up=self.step * (min(self.up_down, 0.0) + gain + side).abs()",
        "up=self.step * (self.up_down + gain + side).abs()",
        f"{PULSES}[constant]",
    ),
    "a range without ends": (
        "devices/cells.py",
        "values = torch.minimum(torch.maximum(values, self.low), self.high)",
        "values = torch.minimum(torch.maximum(values, self.low), 9 * self.high)",
        f"{PULSES}[constant]",
    ),
    "noise of many pulses as that of one": (
        "devices/pulses.py",
        "(log * (many - 1)).exp() * many.sqrt()",
        "(log * (many - 1)).exp()",
        "devices/test_pulses.py::test_the_noise_of_many_pulses_is_that_of_single_ones",
    ),
    "a buffer that is not forgotten": (
        "devices/writing.py",
        "left = self.momentum * buffer if self.forget",
        "left = buffer if self.forget",
        f"{TRANSFERS}[v2]",
    ),
    "a chopper that changes the sign of what is sent alone": (
        "devices/writing.py",
        "return sign * heard, ready",
        "return heard, ready",
        f"{TRANSFERS}[chopped]",
    ),
    "a dynamic reference that stays": (
        "devices/writing.py",
        "torch.where(flips, mean, past)",
        "past",
        f"{TRANSFERS}[agad]",
    ),
    "the rest of a step is lost": (
        "devices/writing.py",
        'state["kept"] = total - counts',
        'state["kept"] = 0 * total',
        f"{WRITING}::test_mixed_precision_loses_nothing",
    ),
    "steps go up the gradient": (
        "devices/writing.py",
        'wanted = parameter.grad * (-group["lr"] / state["scale"])',
        'wanted = parameter.grad * (group["lr"] / state["scale"])',
        f"{WRITING}::test_without_granularity_it_is_gradient_descent_through_the_response",
    ),
    "random draws go on from nowhere after a resume": (
        "devices/writing.py",
        'draw = generator_for("write", self.seed, name, state["step"])',
        "draw = torch.default_generator",
        f"{WRITING}::test_an_interrupted_training_ends_with_the_same_bits[pulses-all at once]",
    ),
    "drift upwards": (
        "devices/ageing.py",
        "** -(mean + spread",
        "** +(mean + spread",
        "devices/test_ageing.py::test_phase_change_has_aihwkits_means_and_deviations[3600]",
    ),
    "compensation that doubles the drift": (
        "devices/ageing.py",
        "weights * (then.abs().mean() / weights.abs().mean())",
        "weights / (then.abs().mean() / weights.abs().mean())",
        "devices/test_ageing.py::test_the_factor_of_compensation_is_the_mean_drift",
    ),
    "other errors of writing at each age": (
        "devices/ageing.py",
        "of_writing, of_drift, of_reading = (normal(shares, generator) for _ in range(3))",
        "of_writing, of_drift, of_reading = (normal(shares, generator) for _ in range(3)) "
        "if age else (normal(shares, generator), 0, 0)",
        "devices/test_ageing.py::test_a_generator_of_the_same_seed_programs_the_same_cells_at_any_age[-1.0]",
    ),
    "outputs are scaled before they are converted": (
        "devices/products.py",
        "return scale * converted(found, converters.out_step, converters.out_bound)",
        "return converted(scale * found, converters.out_step, converters.out_bound)",
        "devices/test_products.py::test_every_entry_of_the_product_is_aihwkits[abs_max]",
    ),
    "a slot for each pulse": (
        "devices/writing.py",
        "int(sizes.max())",
        "int(sizes.sum())",
        f"{WRITING}::test_pulses_and_slots_are_those_of_the_updates",
    ),
    "pulses of the fast array left out of the operations": (
        "devices/writing.py",
        'found["pulses"] + state["fast_pulses"]',
        'found["pulses"]',
        f"{WRITING}::test_reads_of_a_fast_array_are_counted",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_suite_notices(fork_server, tmp_path, bug):
    fork_server.notices(tmp_path, *BUGS[bug])
