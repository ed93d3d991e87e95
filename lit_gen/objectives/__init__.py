"""Objectives: pure functions of tensors and distributions, one value per image."""

from lit_gen.objectives.elbo import LikelihoodTerms, bits_per_dim, kl_divergence, variational_bound

__all__ = ["LikelihoodTerms", "bits_per_dim", "kl_divergence", "variational_bound"]
