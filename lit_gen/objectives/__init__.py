"""Objectives: pure functions of tensors and distributions, one value per image."""

from lit_gen.objectives.contrastive import EnergyTerms, energy_difference
from lit_gen.objectives.elbo import LikelihoodTerms, bits_per_dim, kl_divergence, variational_bound

__all__ = [
    "EnergyTerms",
    "LikelihoodTerms",
    "bits_per_dim",
    "energy_difference",
    "kl_divergence",
    "variational_bound",
]
