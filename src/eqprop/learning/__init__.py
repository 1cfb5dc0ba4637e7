"""How rest becomes a gradient: stencils over nudges, learning rules, estimators, and autograd."""

from eqprop.learning import forms as forms
from eqprop.learning.agnostic import (
    AgnosticEP as AgnosticEP,
)
from eqprop.learning.continual import (
    ContinualEP as ContinualEP,
)
from eqprop.learning.dual import (
    DualPropagation as DualPropagation,
)
from eqprop.learning.equilibrium import (
    Equilibrium as Equilibrium,
)
from eqprop.learning.equilibrium import (
    Record as Record,
)
from eqprop.learning.estimators import (
    Cost as Cost,
)
from eqprop.learning.estimators import (
    EquilibriumPropagation as EquilibriumPropagation,
)
from eqprop.learning.estimators import (
    Estimator as Estimator,
)
from eqprop.learning.estimators import (
    GradientEstimate as GradientEstimate,
)
from eqprop.learning.estimators import (
    GradientFunction as GradientFunction,
)
from eqprop.learning.estimators import (
    PhaseEstimator as PhaseEstimator,
)
from eqprop.learning.forms import (
    Form as Form,
)
from eqprop.learning.forms import (
    Phases as Phases,
)
from eqprop.learning.infinitesimal import (
    InfinitesimalNudge as InfinitesimalNudge,
)
from eqprop.learning.oscillating import (
    OscillatingNudge as OscillatingNudge,
)
from eqprop.learning.penalties import (
    JacobianPenalty as JacobianPenalty,
)
from eqprop.learning.penalties import (
    Penalty as Penalty,
)
from eqprop.learning.penalties import (
    RayleighPenalty as RayleighPenalty,
)
from eqprop.learning.penalties import (
    jacobian_asymmetry as jacobian_asymmetry,
)
from eqprop.learning.penalties import (
    jacobian_norm as jacobian_norm,
)
from eqprop.learning.penalties import (
    rayleigh_quotient as rayleigh_quotient,
)
from eqprop.learning.predictive import (
    FreeStateBaseline as FreeStateBaseline,
)
from eqprop.learning.predictive import (
    LeastSquares as LeastSquares,
)
from eqprop.learning.predictive import (
    PredictiveLearning as PredictiveLearning,
)
from eqprop.learning.predictive import (
    Predictor as Predictor,
)
from eqprop.learning.references import (
    Backpropagation as Backpropagation,
)
from eqprop.learning.references import (
    BackpropagationThroughTime as BackpropagationThroughTime,
)
from eqprop.learning.references import (
    ImplicitDifferentiation as ImplicitDifferentiation,
)
from eqprop.learning.rules import (
    DeltaRule as DeltaRule,
)
from eqprop.learning.rules import (
    Noisy as Noisy,
)
from eqprop.learning.rules import (
    Rule as Rule,
)
from eqprop.learning.rules import (
    clamped_presynaptic as clamped_presynaptic,
)
from eqprop.learning.rules import (
    contrastive as contrastive,
)
from eqprop.learning.rules import (
    generalised_recirculation as generalised_recirculation,
)
from eqprop.learning.rules import (
    kolen_pollack as kolen_pollack,
)
from eqprop.learning.rules import (
    mean_presynaptic as mean_presynaptic,
)
from eqprop.learning.rules import (
    vector_field as vector_field,
)
from eqprop.learning.stencils import (
    Nudging as Nudging,
)
from eqprop.learning.stencils import (
    RandomSign as RandomSign,
)
from eqprop.learning.stencils import (
    Stencil as Stencil,
)
from eqprop.learning.stencils import (
    centred as centred,
)
from eqprop.learning.stencils import (
    five_point as five_point,
)
from eqprop.learning.stencils import (
    holomorphic as holomorphic,
)
from eqprop.learning.stencils import (
    negative as negative,
)
from eqprop.learning.stencils import (
    one_sided as one_sided,
)
from eqprop.learning.stencils import (
    optimistic as optimistic,
)
from eqprop.learning.stencils import (
    pessimistic as pessimistic,
)
from eqprop.learning.stencils import (
    positive as positive,
)
from eqprop.learning.stencils import (
    symmetric as symmetric,
)
from eqprop.learning.teachers import (
    Teacher as Teacher,
)
from eqprop.learning.teachers import (
    clamp as clamp,
)
from eqprop.learning.teachers import (
    force as force,
)
from eqprop.learning.teachers import (
    soft_clamp as soft_clamp,
)
