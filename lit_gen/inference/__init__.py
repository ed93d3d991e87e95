"""Algorithms on densities, without Lightning."""

from lit_gen.inference.active_units import ACTIVE_VARIANCE, activity, posterior_moments
from lit_gen.inference.ais import (
    AnnealedPath,
    PartitionEstimate,
    Progress,
    ais,
    ais_log_weights,
    published_temperatures,
    raise_log_likelihood,
    reverse_ais,
    reverse_ais_log_weights,
    sigmoid_temperatures,
)
from lit_gen.inference.concepts import Box, codes_around, concept_weights, inside_boxes, latent_arithmetic
from lit_gen.inference.decoder_likelihood import DecoderDensity, DecoderPath, LikelihoodEstimate, decoder_log_likelihood
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
from lit_gen.inference.next_view import view_information
from lit_gen.inference.parzen import GRID, ParzenEstimate, parzen_log_likelihood
from lit_gen.inference.pseudo_likelihood import pseudo_log_likelihood, stochastic_pseudo_log_likelihood
from lit_gen.inference.pyramid_parzen import Downsampling, PyramidLikelihood, Windows, conditional_parzen

__all__ = [
    "ACTIVE_VARIANCE",
    "GRID",
    "AnnealedPath",
    "Box",
    "DecoderDensity",
    "DecoderPath",
    "DepthObservation",
    "Downsampling",
    "DualAveraging",
    "HMCSamples",
    "LikelihoodEstimate",
    "MultiplicativeAdaptation",
    "PartitionEstimate",
    "ParzenEstimate",
    "Point",
    "Progress",
    "PyramidLikelihood",
    "StepSizeAdaptation",
    "Transition",
    "Windows",
    "activity",
    "ais",
    "ais_log_weights",
    "binary_states",
    "chain",
    "codes_around",
    "concept_weights",
    "conditional_parzen",
    "decoder_log_likelihood",
    "enumerated_log_partition",
    "evaluate",
    "hmc",
    "hmc_step",
    "importance_bound",
    "inside_boxes",
    "latent_arithmetic",
    "leapfrog",
    "observe_depth",
    "parzen_log_likelihood",
    "posterior_moments",
    "pseudo_log_likelihood",
    "published_temperatures",
    "raise_log_likelihood",
    "reverse_ais",
    "reverse_ais_log_weights",
    "run_chain",
    "sigmoid_temperatures",
    "stochastic_pseudo_log_likelihood",
    "view_information",
]
