"""Algorithms on densities, without Lightning."""

from lit_gen.inference.importance import importance_bound

__all__ = ["importance_bound"]
