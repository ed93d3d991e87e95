"""Objectives: pure functions of tensors and distributions, one value per image."""

from lit_gen.objectives.adversarial import DiscriminatorTerms
from lit_gen.objectives.contrastive import EnergyTerms, energy_difference
from lit_gen.objectives.diffusion import (
    GaussianChain,
    bernoulli_kl,
    binomial_posterior,
    cosine_rates,
    discretized_gaussian_log_prob,
    epsilon_weights,
    erasing_rates,
    gaussian_chain,
    kept_signal,
    linear_rates,
    reverse_variances,
    stratified_steps,
)
from lit_gen.objectives.elbo import LikelihoodTerms, bits_per_dim, kl_divergence, variational_bound
from lit_gen.objectives.importance import (
    SampleWeights,
    importance_weighted_bound,
    normalized_weights,
    weighted_surrogate,
)
from lit_gen.objectives.perceptual import half_squares, shift, shift_tolerant_error, unexplained

__all__ = [
    "DiscriminatorTerms",
    "EnergyTerms",
    "GaussianChain",
    "LikelihoodTerms",
    "SampleWeights",
    "bernoulli_kl",
    "binomial_posterior",
    "bits_per_dim",
    "cosine_rates",
    "discretized_gaussian_log_prob",
    "energy_difference",
    "epsilon_weights",
    "erasing_rates",
    "gaussian_chain",
    "half_squares",
    "importance_weighted_bound",
    "kept_signal",
    "kl_divergence",
    "linear_rates",
    "normalized_weights",
    "reverse_variances",
    "shift",
    "shift_tolerant_error",
    "stratified_steps",
    "unexplained",
    "variational_bound",
    "weighted_surrogate",
]
