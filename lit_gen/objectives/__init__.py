"""Objectives: pure functions of tensors and distributions, one value per image."""

from lit_gen.objectives.contrastive import EnergyTerms, energy_difference
from lit_gen.objectives.elbo import LikelihoodTerms, bits_per_dim, kl_divergence, variational_bound
from lit_gen.objectives.importance import (
    SampleWeights,
    importance_weighted_bound,
    normalized_weights,
    weighted_surrogate,
)

__all__ = [
    "EnergyTerms",
    "LikelihoodTerms",
    "SampleWeights",
    "bits_per_dim",
    "energy_difference",
    "importance_weighted_bound",
    "kl_divergence",
    "normalized_weights",
    "variational_bound",
    "weighted_surrogate",
]
