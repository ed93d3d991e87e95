"""Algorithms on densities, without Lightning."""

from lit_gen.inference.ais import (
    AnnealedPath,
    PartitionEstimate,
    Progress,
    ais,
    published_temperatures,
    raise_log_likelihood,
    reverse_ais,
)
from lit_gen.inference.depth import DepthObservation, observe_depth
from lit_gen.inference.enumeration import binary_states, enumerated_log_partition
from lit_gen.inference.gibbs import chain, run_chain
from lit_gen.inference.hmc import (
    DualAveraging,
    HMCSamples,
    MultiplicativeAdaptation,
    Point,
    StepSizeAdaptation,
    Transition,
    evaluate,
    hmc,
    hmc_step,
    leapfrog,
)
from lit_gen.inference.importance import importance_bound
from lit_gen.inference.pseudo_likelihood import pseudo_log_likelihood, stochastic_pseudo_log_likelihood

__all__ = [
    "AnnealedPath",
    "DepthObservation",
    "DualAveraging",
    "HMCSamples",
    "MultiplicativeAdaptation",
    "PartitionEstimate",
    "Point",
    "Progress",
    "StepSizeAdaptation",
    "Transition",
    "ais",
    "binary_states",
    "chain",
    "enumerated_log_partition",
    "evaluate",
    "hmc",
    "hmc_step",
    "importance_bound",
    "leapfrog",
    "observe_depth",
    "pseudo_log_likelihood",
    "published_temperatures",
    "raise_log_likelihood",
    "reverse_ais",
    "run_chain",
    "stochastic_pseudo_log_likelihood",
]
