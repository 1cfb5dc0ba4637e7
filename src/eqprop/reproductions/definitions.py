"""The published results that ``eqprop reproduce`` knows, with their settings and what differs from the publication.

A published figure stands here only if it was read in the source's own files; where it was not, the comparison is with
the order of rows, or with a law, that the source states.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from eqprop.reproductions import computed
from eqprop.reproductions.result import Claim, Computation, Quantity, Result, Row, Setting, Table, Training
from eqprop.substrates import ReadNoise

TEST = Quantity("test_error", "test error", "%")
TRAIN = Quantity("train_error", "train error", "%")
BEST = Quantity("best_test_error", "test error of the chosen epoch", "%")
"""Of the epoch that the run has chosen."""
ANGLE = Quantity("angle", "angle", "degrees", log=True)
ERROR = Quantity("error", "relative error", log=True)
MNIST, CIFAR10 = "ylecun/mnist", "uoft-cs/cifar10"
SECONDS = "seconds"
NO_FIGURES = "Its figures could not be read, so that the comparison is with what its abstract says."
LOUD = ReadNoise(0.04)
"""The noise of ``noise``."""

Rows = Mapping[str, Row]


def trial(rows: Rows, **options: Any) -> Setting:
    """The same rows at the smallest size: that everything runs, not what comes out."""
    least: dict[str, Any] = {"epochs": 1, "train_images": 100, "width": 0.1} | options
    small = {
        name: replace(row, part=Training(row.part.recipe, {**row.part.options, **least}))
        for name, row in rows.items()
        if isinstance(row.part, Training)
    }
    about = "100 images of 8x8 digits, a tenth of the units, one epoch: a test of the program, which shows nothing."
    return Setting(about, SECONDS, ["everything: use another setting for the result"], small)


def falls(quantity: str, small: str, large: str, low: float, high: float) -> Callable[[Table], bool]:
    """Whether a quantity of the row ``large`` is ``low`` to ``high`` times that of ``small``."""
    return lambda table: low <= table.mean(large, quantity) / table.mean(small, quantity) <= high


def all_below(limit: float, *names: str, quantity: str = "test_error") -> Callable[[Table], bool]:
    """Whether a quantity of all these rows is below a limit."""
    return lambda table: all(table.mean(name, quantity) < limit for name in names)


# Gradients

BETAS = (0.1, 0.01, 0.001)


def steps_at(hidden: tuple[int, ...], free: int, nudged: int) -> Rows:
    how = {"hidden": list(hidden), "scale": 0.5, "free": free, "nudged": nudged, "images": 20}
    return {
        f"beta {beta}": Row(Computation(computed.steps, {**how, "beta": beta}), "one-sided", beta) for beta in BETAS
    }


STEPS = Result(
    title="The updates of nudged sweeps are those of backpropagation through time, step by step",
    source="Ernoult et al. 2019, arXiv 1905.13633",
    read="Its figures could not be read. The comparison is with its theorem: the distance vanishes with beta.",
    quantities=[
        Quantity("one_sided", "error of one sign, worst tensor", log=True),
        Quantity("symmetric", "error of the mean of both signs", log=True),
    ],
    claims=[
        Claim("the error of one sign falls with beta", falls("one_sided", "beta 0.001", "beta 0.01", 8, 12)),
        Claim("that of both signs falls with beta squared", falls("symmetric", "beta 0.001", "beta 0.01", 64, 144)),
        Claim("at beta 0.001 it is below 1 %", all_below(0.01, "beta 0.001", quantity="one_sided")),
    ],
    settings={
        "small": Setting(
            "64-128-128-128-10, tanh, squared error, 20 digits, 300 free and 30 nudged synchronous sweeps, float64.",
            "a minute",
            ["8x8 digits and layers of 128; published: MNIST and layers of 512",
             "sweeps of the discrete dynamics until rest (300); published: 150 to 30,000 steps, by dynamics",
             "PyTorch's initial weights times 0.5, so that it settles; the published ones were not read",
             "float64; published: float32"],
            steps_at((128, 128, 128), 300, 30),
            seeds=3,
        ),
        "mnist": Setting(
            "784-512-512-512-10, tanh, squared error, 20 images, 300 free and 30 nudged synchronous sweeps, float64.",
            "some minutes on one core",
            ["sweeps of the discrete dynamics until rest (300); published: 150 to 30,000 steps, by dynamics",
             "PyTorch's initial weights times 0.5, so that it settles; the published ones were not read",
             "float64; published: float32"],
            steps_at((512, 512, 512), 300, 30),
            data=MNIST,
        ),
        "trial": Setting(
            "64-10-10, 20 digits: a test of the program.", SECONDS, ["everything: use another setting"],
            steps_at((10,), 300, 5),
        ),
    },
    across="beta",
    log_x=True,
)  # fmt: skip

GAINS = (1.0, 0.1, 0.01, 0.001)


def feedback_at(images: int, gains: tuple[float, ...] = GAINS) -> Rows:
    return {
        f"{rule}, gain {gain:g}": Row(
            Computation(computed.feedback, {"rule": rule, "gain": gain, "images": images}), rule, gain
        )
        for rule in computed.CONTRASTS
        for gain in gains
    }


CONTRASTIVE = Result(
    title="Contrastive Hebbian learning with weak feedback is backpropagation",
    source="Xie & Seung 2003, doi 10.1162/089976603762552988; with clamped presynaptic activity: Luczak et al. 2022, "
    "doi 10.1038/s42256-021-00430-y",
    read="A theorem, without figures: equal in the limit of weak feedback.",
    quantities=[ANGLE, ERROR],
    claims=[
        Claim(
            f"{rule}: the error falls in proportion to the gain",
            falls("error", f"{rule}, gain 0.001", f"{rule}, gain 0.01", 9, 11),
        )
        for rule in computed.CONTRASTS
    ]
    + [
        Claim(
            "at gain 1 none of them is backpropagation: more than 20 degrees",
            lambda table: all(table.mean(f"{rule}, gain 1", "angle") > 20 for rule in computed.CONTRASTS),
        )
    ],
    settings={
        "small": Setting(
            "64-256-256-10, tanh, linear output, 50 digits, initial weights, settled to 1e-12, float64.",
            "a minute",
            ["8x8 digits and this network; published: an analysis of any layered network"],
            feedback_at(50),
            seeds=3,
        ),
        "trial": Setting(
            "2 digits: a test of the program.", SECONDS, ["everything: use another setting"],
            feedback_at(2, (0.01,)),
        ),
    },
    across="feedback gain",
    log_x=True,
)  # fmt: skip

ANGLES = (0, 30, 60, 90)
RULES = (*computed.SEPARATE, computed.DYADIC)


def turned_at(images: int, angles: tuple[int, ...] = ANGLES, betas: tuple[float, ...] = BETAS[:2]) -> Rows:
    return {
        f"{rule}, {angle}°, beta {beta}": Row(
            Computation(computed.turned, {"rule": rule, "angle": float(angle), "beta": beta, "images": images}),
            f"{rule}, beta {beta}",
            angle,
        )
        for rule in RULES
        for beta in betas
        for angle in angles
    }


def exact_at(rule: str) -> Callable[[Table], bool]:
    """Whether a rule's error at every angle falls with beta squared, to a cosine of 0.9999."""
    return lambda table: all(
        80
        <= table.mean(f"{rule}, {angle}°, beta 0.1", "error") / table.mean(f"{rule}, {angle}°, beta 0.01", "error")
        <= 120
        and table.mean(f"{rule}, {angle}°, beta 0.01", "angle") < 0.81
        for angle in ANGLES
    )


SEPARATE = Result(
    title="Asymmetric and dyadic equilibrium propagation give the exact gradient without symmetric weights",
    source="Scurria et al. 2026, arXiv 2602.03670",
    read=NO_FIGURES,
    quantities=[ANGLE, ERROR],
    claims=[
        Claim("asymmetric EP: at every angle the error falls with beta squared", exact_at("asymmetric EP")),
        Claim("dyadic EP: the same", exact_at(computed.DYADIC)),
        Claim(
            "the vector field alone is biased: by more than 10 degrees at 30 degrees and beyond",
            lambda table: all(table.mean(f"vector field, {angle}°, beta 0.01", "angle") > 10 for angle in ANGLES[1:]),
        ),
    ],
    settings={
        "small": Setting(
            "64-256-256-10, tanh, feedback weights turned by 0 to 90 degrees from the feedforward weights, 20 digits, "
            "initial weights, settled to 1e-12, float64.",
            "minutes",
            ["the network, 8x8 digits and initial weights are this package's own choice; published: training on MNIST"],
            turned_at(20),
            seeds=3,
        ),
        "trial": Setting(
            "2 digits: a test of the program.", SECONDS, ["everything: use another setting"],
            turned_at(2, (90,), BETAS[:1]),
        ),
    },
    across="angle between feedforward and feedback weights (degrees)",
)  # fmt: skip

# Training on digits and MNIST

SIDES = {"vector field": "vector-field", "Kolen-Pollack": "kolen-pollack", "asymmetric EP": "asymmetric"}


def asymmetry_at(**options: Any) -> Rows:
    return {
        f"{rule}, {angle}°": Row(Training(f"mnist-{recipe}", {**options, "angle": float(angle)}), rule, angle)
        for rule, recipe in SIDES.items()
        for angle in ANGLES
    }


def mean_of(table: Table, rule: str) -> float:
    """The mean test error of a rule over the angles."""
    return sum(table.mean(f"{rule}, {angle}°") for angle in ANGLES) / len(ANGLES)


ASYMMETRY = Result(
    title="Training with feedback weights at 0 to 90 degrees to the feedforward weights",
    source="Scurria et al. 2026, arXiv 2602.03670; the angles: Laborieux & Zenke 2024, arXiv 2309.02214; Kolen-Pollack "
    "and the vector field: Laborieux et al. 2021, doi 10.3389/fnins.2021.633674",
    read=NO_FIGURES,
    quantities=[TEST, TRAIN],
    claims=[
        Claim(
            "asymmetric EP learns better than the plain vector field, over all angles and at 90 degrees",
            lambda table: mean_of(table, "asymmetric EP") < mean_of(table, "vector field")
            and table.mean("asymmetric EP, 90°") < table.mean("vector field, 90°"),
        ),
        Claim(
            "it is at most one point behind Kolen-Pollack over all angles",
            lambda table: mean_of(table, "asymmetric EP") < mean_of(table, "Kolen-Pollack") + 1,
        ),
    ],
    settings={
        "small": Setting(
            "MNIST, 10,000 images, 3 epochs, 784-256-256-10, tanh, 10 free and 2 x 6 nudged sweeps.",
            "10 minutes on one core",
            ["network, 10,000 images, 3 epochs and Adam are this package's own choice: the published were not read",
             "so are nudges of ±0.2 and the numbers of sweeps"],
            asymmetry_at(epochs=3, train_images=10_000),
            MNIST,
            3,
        ),
        "mnist": Setting(
            "MNIST, 10 epochs, 784-256-256-10, tanh, 10 free and 2 x 6 nudged sweeps.",
            "3 hours on one core (estimated)",
            ["network, 10 epochs and Adam are this package's own choice: the published ones were not read"],
            asymmetry_at(epochs=10),
            MNIST,
            3,
        ),
        "trial": trial(asymmetry_at()),
    },
    across="angle at first (degrees)",
)  # fmt: skip

STUDY = {
    "contrastive learning": "cl",
    "positive EP": "pep",
    "negative EP": "nep",
    "centred EP": "cep",
    "positive coupled learning": "pcpl",
    "negative coupled learning": "ncpl",
    "centred coupled learning": "ccpl",
    "truncated backpropagation": "tbp",
    "recurrent backpropagation": "rbp",
}


def study_at(**options: Any) -> Rows:
    return {name: Row(Training("mnist-study", {**options, "rule": rule})) for name, rule in STUDY.items()}


COMPARATIVE = Result(
    title="Seven energy-based rules and two baselines on one network",
    source="Scellier et al. 2023, arXiv 2312.15103",
    read="Its tables could not be read; by its abstract the rules are equal on MNIST, and differ on harder tasks, "
    "where centred EP is best.",
    quantities=[TEST, TRAIN],
    claims=[
        Claim(
            "the six rules of EP and coupled learning are equal on MNIST: at most one point apart",
            lambda table: max(errors := [table.mean(name) for name, rule in STUDY.items() if rule[1:] in ("ep", "cpl")])
            - min(errors)
            < 1,
        ),
        Claim(
            "centred EP is within half a point of recurrent backpropagation",
            lambda table: abs(table.mean("centred EP") - table.mean("recurrent backpropagation")) < 0.5,
        ),
    ],
    settings={
        "small": Setting(
            "MNIST, 10,000 images, 4 epochs, 784-256-256-10, tanh, 10 free and 6 nudged sweeps, beta 0.2.",
            "10 minutes on one core",
            ["a dense network; published: four convolutions, 60 and 15 sweeps, beta 0.25, 100 epochs",
             "10,000 images, 4 epochs, Adam; published: all of them, momentum"],
            study_at(epochs=4, train_images=10_000),
            MNIST,
            3,
        ),
        "digits": Setting(
            "8x8 digits, 20 epochs, 64-256-256-10, tanh, 10 free and 6 nudged sweeps, beta 0.2.",
            "5 minutes on one core",
            ["a dense network on 8x8 digits; published: four convolutions on MNIST and harder tasks"],
            study_at(epochs=20, batch_size=32),
            seeds=3,
        ),
        "trial": trial(study_at()),
    },
)  # fmt: skip

NOISY = "eqprop.reproductions.definitions.LOUD"


def noise_at(**options: Any) -> Rows:
    def plain(beta: float, substrate: str) -> Row:
        return Row(Training("mnist-study", {**options, "rule": "pep", "beta": beta, "substrate": substrate}))

    circle = {**options, "points": 10, "beta": 0.4, "substrate": NOISY}
    return {
        "one-sided, beta 0.1, no noise": plain(0.1, "ideal"),
        "one-sided, beta 0.1": plain(0.1, NOISY),
        "one-sided, beta 0.4": plain(0.4, NOISY),
        "holomorphic, 10 points, beta 0.4": Row(Training("mnist-holomorphic", circle)),
    }


NOISE = Result(
    title="Noise ends learning at small nudges; holomorphic equilibrium propagation survives it",
    source="Laborieux & Zenke 2022, arXiv 2209.00530",
    read="Figures: the logs of its program, with noise of 0.04 in every step of each unit.",
    published={
        "one-sided, beta 0.1, no noise": {"test_error": "1.97 %"},
        "one-sided, beta 0.1": {"test_error": "89 to 90 %"},
        "one-sided, beta 0.4": {"test_error": "3.16 to 4.01 %"},
        "holomorphic, 10 points, beta 0.4": {"test_error": "1.88 to 2.45 %"},
    },
    quantities=[TEST, TRAIN],
    claims=[
        Claim(
            "with noise, a larger one-sided nudge is better than a small one",
            lambda table: table.mean("one-sided, beta 0.4") < table.mean("one-sided, beta 0.1"),
        ),
        Claim(
            "holomorphic EP learns best under noise",
            lambda table: table.mean("holomorphic, 10 points, beta 0.4")
            < min(table.mean("one-sided, beta 0.4"), table.mean("one-sided, beta 0.1")),
        ),
        Claim(
            "it is within a point of the small nudge without noise",
            lambda table: table.mean("holomorphic, 10 points, beta 0.4")
            < table.mean("one-sided, beta 0.1, no noise") + 1,
        ),
        Claim(
            "the small nudge under noise is near chance: an error above 80 %",
            lambda table: table.mean("one-sided, beta 0.1") > 80,
        ),
    ],
    settings={
        "small": Setting(
            "MNIST, 10,000 images, 4 epochs, 784-256-256-10, tanh, 30 free and 10 nudged sweeps, noise of 0.04.",
            "20 minutes on one core",
            ["4 epochs, 10,000 images; published: 50 epochs, all images",
             "noise in each reading of a state; published: in every step of every unit, of which the last is read",
                "30 and 10 sweeps, odd layers after even ones; published: 200 and 50 synchronous steps",
             "tanh, linear output, squared error and Adam at 1e-3 are this package's own choice"],
            noise_at(epochs=4, train_images=10_000, free_sweeps=30, nudged_sweeps=10),
            MNIST,
            3,
        ),
        "trial": trial(noise_at()),
    },
)  # fmt: skip

DEPTHS = range(1, 13)


def depth_at(**options: Any) -> Rows:
    return {
        f"{depth} hidden layers": Row(Training("digits-deep", {**options, "depth": depth}), x=depth) for depth in DEPTHS
    }


DEPTH = Result(
    title="Deep networks learn by equilibrium propagation: 1 to 12 hidden layers on digits",
    source="A counter-example to github.com/autonull/bioplausible, whose records say that its contrastive EP does not "
    "learn with 3 layers or more",
    read="Figures: the project's own records, 6 seeds.",
    published={f"{depth} hidden layers": {"test_error": "89.1 %"} for depth in (3, 4)},
    quantities=[TEST, TRAIN],
    claims=[
        Claim(
            "at every depth the test error is at most 3 %",
            lambda table: max(table.mean(f"{depth} hidden layers") for depth in DEPTHS) <= 3,
        )
    ],
    settings={
        "small": Setting(
            "8x8 digits, 256 tanh units a layer, gain 0.03, 2 sweeps forwards, 1 back, smoothed labels, 30 epochs.",
            "3 minutes on one core",
            ["weak feedback and infinitesimal nudges; published: full feedback and finite ones"],
            depth_at(),
        ),
        "trial": trial(depth_at()),
    },
    across="hidden layers",
)  # fmt: skip

JPEG = "the JPEG copy of CIFAR-10 on the hub"
PREDICTIVE_CHOICES = (
    "one pass of errors; published: five sweeps of states",
    "the scale of initial weights, which was not published",
)
PREDICTIVE_RULES = {"centred EP": "centred", "backpropagation": "backpropagation"}
COSTS = {"squared error": "cifar10-pc-vgg5", "cross-entropy": "cifar10-pc-vgg5-ce"}


def predictive_at(recipes: Mapping[str, str], **options: Any) -> Rows:
    return {
        f"{cost}: {name}": Row(Training(recipe, {**options, "rule": rule}))
        for cost, recipe in recipes.items()
        for name, rule in PREDICTIVE_RULES.items()
    }


def as_backpropagation(cost: str) -> Claim:
    """Whether the two rows of a cost, or of the digits, agree."""
    return Claim(
        f"{cost}: centred EP is within one point of backpropagation",
        lambda table: abs(table.mean(f"{cost}: centred EP") - table.mean(f"{cost}: backpropagation")) < 1,
    )


PREDICTIVE = Result(
    title="Equilibrium propagation on predictive-coding networks learns as well as backpropagation",
    source="Kerjan, Høier & Scellier 2026, arXiv 2606.03584",
    read="Figures: its first table, of a copy of the text.",
    published={
        "squared error: centred EP": {"test_error": "7.8 ± 0.1 %"},
        "squared error: backpropagation": {"test_error": "8.0 ± 0.0 %"},
        "cross-entropy: centred EP": {"test_error": "9.7 ± 0.2 %"},
        "cross-entropy: backpropagation": {"test_error": "9.5 ± 0.0 %"},
    },
    quantities=[TEST, TRAIN],
    claims=[as_backpropagation(cost) for cost in (*COSTS, "digits")],
    settings={
        "small": Setting(
            "CIFAR-10, 10,000 images, 10 epochs, five convolutions of 16, 32, 64, 64 and 64 channels, nudges of ±0.02, "
            "one pass of errors.",
            "13 minutes on one core",
            ["an eighth of the channels (published 128, 256, 512, 512, 512)",
             "10,000 images, a tenth of them held out, 10 epochs; published: all images, 100 epochs",
             *PREDICTIVE_CHOICES, JPEG],
            predictive_at(COSTS, width=0.125, train_images=10_000, epochs=10, choose_by_test=False),
            CIFAR10,
            3,
        ),
        "quarter": Setting(
            "CIFAR-10, 20 epochs, five convolutions of 32, 64, 128, 128 and 128 channels, nudges of ±0.02, one pass of "
            "errors.",
            "about an hour a row on two cores (estimated)",
            ["a quarter of the channels (published 128, 256, 512, 512, 512)",
             "20 epochs; published: 100",
             *PREDICTIVE_CHOICES, JPEG],
            predictive_at(COSTS, width=0.25, epochs=20),
            CIFAR10,
            3,
        ),
        "digits": Setting(
            "8x8 digits, 10 epochs, two convolutions of 32 and 64 channels, nudges of ±0.02, one pass of errors.",
            "half a minute on one core",
            ["8x8 digits, a tenth of them held out (published CIFAR-10)",
             "two convolutions, 10 epochs; published: five convolutions, 100 epochs",
             *PREDICTIVE_CHOICES],
            predictive_at({"digits": "digits-pc"}),
            seeds=3,
        ),
        "trial": trial(predictive_at({"digits": "digits-pc"})),
    },
)  # fmt: skip

# Circuits


def resistive(recipe: str, **options: Any) -> Rows:
    return {"equilibrium propagation": Row(Training(recipe, options))}


def near(limit: float, published: float) -> Callable[[Table], bool]:
    """Whether the test error is within ``limit`` points of the published one."""
    return lambda table: abs(table.mean("equilibrium propagation") - published) <= limit


def circuit(
    recipe: str,
    resistors: str,
    ep: tuple[str, str],
    backpropagation: tuple[str, str],
    claim: Claim,
    about: str,
    cost: str,
    seeds: int = 1,
) -> Result:
    """A network of resistors on MNIST; published are pairs of test and training error."""
    published = {"equilibrium propagation": ep, "backpropagation": backpropagation}
    return Result(
        title=f"MNIST by a network of {resistors} resistors",
        source="Scellier 2024, arXiv 2402.11674",
        read="Figures: the scripts of its program.",
        published={row: {"test_error": test, "train_error": train} for row, (test, train) in published.items()},
        quantities=[TEST, TRAIN],
        claims=[claim],
        settings={
            "full": Setting(
                about,
                cost,
                ["none in the settings; other initial weights and orders of the images"],
                resistive(recipe),
                MNIST,
                seeds,
            ),
            "trial": trial(resistive(recipe, batch_size=20)),
        },
    )


RESISTIVE_XS = circuit(
    "mnist-resistive-xs",
    "157,800",
    ("3.46 %", "2.94 %"),
    ("3.30 %", "2.62 %"),
    Claim("the test error is within half a point of the published 3.46 %", near(0.5, 3.46)),
    "2x784 voltage sources, 100 diodes, 10 outputs; batch 4, centred nudges of 1, 4 and 4 sweeps, 10 epochs.",
    "half an hour a seed on one free core (estimated)",
    seeds=3,
)
RESISTIVE_1H = circuit(
    "mnist-resistive-1h",
    "1.6 million",
    ("1.57 %", "0.12 %"),
    ("1.54 %", "0.12 %"),
    Claim("the test error is within 0.3 points of the published 1.57 %", near(0.3, 1.57)),
    "2x784 voltage sources, 1,024 diodes, 10 outputs; batch 4, centred nudges of 1, 4 and 4 sweeps, 50 epochs.",
    "about a day on one core (estimated)",
)

# The table of Laborieux et al. 2021

SEED_ROWS = {
    "squared error: one-sided": "mse-one-sided",
    "squared error: random sign": "mse-random-sign",
    "squared error: symmetric": "mse-symmetric",
    "squared error: BPTT": "mse-bptt",
    "cross-entropy: symmetric": "ce-symmetric",
    "cross-entropy: BPTT": "ce-bptt",
    "cross-entropy, dropout: symmetric": "ce-dropout-symmetric",
    "cross-entropy, dropout: BPTT": "ce-dropout-bptt",
    "separate feedback: different updates": "separate-vector-field",
    "separate feedback: same update": "separate-kolen-pollack",
    "separate feedback: asymmetric EP": "separate-asymmetric",
}


def seed_at(free: int, nudged: int, **options: Any) -> Rows:
    def part(recipe: str) -> Training:
        last = "last_sweeps" if recipe.endswith("bptt") else "nudged_sweeps"
        return Training(f"cifar10-{recipe}", {**options, "free_sweeps": free, last: nudged})

    return {name: Row(part(recipe)) for name, recipe in SEED_ROWS.items()}


def ordered(*names: str) -> Callable[[Table], bool]:
    """Whether the test errors of these rows fall from each to the next."""
    return lambda table: all(best(table, worse) > best(table, better) for worse, better in itertools.pairwise(names))


def best(table: Table, row: str) -> float:
    return table.mean(row, BEST.name)


SMALL_SEED = {"width": 0.125, "train_images": 3000, "epochs": 24, "batch_size": 32, "choose_by_test": False}
SEED = Result(
    title="Symmetric nudges train a convolutional network where one-sided ones fail",
    source="Laborieux et al. 2021, doi 10.3389/fnins.2021.633674; asymmetric EP: Scurria et al. 2026, arXiv 2602.03670",
    read="Its table could not be read; by its abstract, one-sided nudges nearly fail on CIFAR-10, symmetric ones "
    "approach backpropagation through time, and separate feedback weights come close.",
    quantities=[BEST, TRAIN],
    claims=[
        Claim(
            "squared error: one-sided nudges fail, at 10 points or more behind symmetric ones",
            lambda table: best(table, "squared error: one-sided") > best(table, "squared error: symmetric") + 10,
        ),
        Claim(
            "a random sign is better than one sign", ordered("squared error: one-sided", "squared error: random sign")
        ),
        Claim(
            "symmetric nudges are within 3 points of backpropagation through time",
            lambda table: abs(best(table, "squared error: symmetric") - best(table, "squared error: BPTT")) < 3,
        ),
        Claim(
            "so they are with cross-entropy",
            lambda table: abs(best(table, "cross-entropy: symmetric") - best(table, "cross-entropy: BPTT")) < 3,
        ),
        Claim(
            "separate feedback: one update for both is better than different ones",
            ordered("separate feedback: different updates", "separate feedback: same update"),
        ),
        Claim(
            "asymmetric EP is better than the plain vector field",
            ordered("separate feedback: different updates", "separate feedback: asymmetric EP"),
        ),
    ],
    settings={
        "small": Setting(
            "CIFAR-10, 3,000 images, 24 epochs, four convolutions of 16, 32, 64 and 64 channels, 30 free and 10 nudged "
            "sweeps, batch 32.",
            "10 minutes a row on one core (estimated)",
            ["an eighth of the channels (published 128, 256, 512, 512)",
             "3,000 images, a tenth of them held out (published: all 50,000)",
             "24 epochs of batches of 32 (published 120 of 128), at the published rates, which hardly fall in 24",
             "30 and 10 sweeps (published 250 and 25 or 30)",
             "the epoch that the held-out tenth chooses (published: that of the best test accuracy)",
             JPEG],
            seed_at(30, 10, **SMALL_SEED),
            CIFAR10,
        ),
        "quarter": Setting(
            "CIFAR-10, 10 epochs, four convolutions of 32, 64, 128 and 128 channels, 60 free and 25 nudged sweeps.",
            "about 2 hours a row on two cores (estimated)",
            ["a quarter of the channels (published 128, 256, 512, 512)",
             "10 epochs (published 120; the cosine of the rates still has a period of 100)",
             "60 and 25 sweeps (published 250 and 25 or 30)",
             JPEG],
            seed_at(60, 25, width=0.25, epochs=10),
            CIFAR10,
            3,
        ),
        "trial": trial(seed_at(5, 2, depth=2, mean=[0.0], std=[1.0], rates=[0.25, 0.15, 0.1])),
    },
)  # fmt: skip

RESULTS: Mapping[str, Result] = MappingProxyType(
    {
        "ep-is-bptt": STEPS,
        "chl-is-backpropagation": CONTRASTIVE,
        "asymmetric-gradients": SEPARATE,
        "asymmetric-training": ASYMMETRY,
        "seven-rules": COMPARATIVE,
        "noise": NOISE,
        "depth": DEPTH,
        "predictive-coding": PREDICTIVE,
        "resistive-xs": RESISTIVE_XS,
        "resistive-1h": RESISTIVE_1H,
        "cifar10-table": SEED,
    }
)
"""By the names that the command line takes."""
