"""Objectives: pure functions of tensors and distributions, one value per image."""

from lit_gen.objectives.elbo import LikelihoodTerms, bits_per_dim, kl_divergence, variational_bound
from lit_gen.objectives.importance import log_mean_exp

__all__ = ["LikelihoodTerms", "bits_per_dim", "kl_divergence", "log_mean_exp", "variational_bound"]
