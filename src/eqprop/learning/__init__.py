"""From equilibria to gradients: stencils over nudges, learning rules, estimators, and autograd."""

from eqprop.learning import forms as forms
from eqprop.learning.agnostic import AgnosticEP as AgnosticEP
from eqprop.learning.continual import ContinualEP as ContinualEP
from eqprop.learning.dual import DualPropagation as DualPropagation
from eqprop.learning.dyadic import DyadicEP as DyadicEP
from eqprop.learning.equilibrium import Equilibrium as Equilibrium, Record as Record
from eqprop.learning.estimators import (
    Cost as Cost,
    EquilibriumPropagation as EquilibriumPropagation,
    Estimator as Estimator,
    GradientEstimate as GradientEstimate,
    GradientFunction as GradientFunction,
    PhaseEstimator as PhaseEstimator,
)
from eqprop.learning.forms import Form as Form, Phases as Phases
from eqprop.learning.infinitesimal import InfinitesimalNudge as InfinitesimalNudge
from eqprop.learning.oscillating import LockIn as LockIn, OscillatingNudge as OscillatingNudge
from eqprop.learning.penalties import (
    JacobianPenalty as JacobianPenalty,
    Penalty as Penalty,
    RayleighPenalty as RayleighPenalty,
    jacobian_asymmetry as jacobian_asymmetry,
    jacobian_norm as jacobian_norm,
    rayleigh_quotient as rayleigh_quotient,
)
from eqprop.learning.predictive import (
    FreeStateBaseline as FreeStateBaseline,
    LeastSquares as LeastSquares,
    PredictiveLearning as PredictiveLearning,
    Predictor as Predictor,
)
from eqprop.learning.references import (
    Backpropagation as Backpropagation,
    BackpropagationThroughTime as BackpropagationThroughTime,
    ImplicitDifferentiation as ImplicitDifferentiation,
)
from eqprop.learning.rules import (
    DeltaRule as DeltaRule,
    Noisy as Noisy,
    Rule as Rule,
    clamped_presynaptic as clamped_presynaptic,
    contrastive as contrastive,
    generalised_recirculation as generalised_recirculation,
    kolen_pollack as kolen_pollack,
    mean_presynaptic as mean_presynaptic,
    vector_field as vector_field,
)
from eqprop.learning.stencils import (
    Nudging as Nudging,
    RandomSign as RandomSign,
    Stencil as Stencil,
    centred as centred,
    five_point as five_point,
    holomorphic as holomorphic,
    negative as negative,
    one_sided as one_sided,
    optimistic as optimistic,
    pessimistic as pessimistic,
    positive as positive,
    symmetric as symmetric,
)
from eqprop.learning.teachers import (
    Corrected as Corrected,
    Teacher as Teacher,
    clamp as clamp,
    corrected as corrected,
    force as force,
    soft_clamp as soft_clamp,
)
