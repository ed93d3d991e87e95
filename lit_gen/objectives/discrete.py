"""Gradients of expectations over discrete samples, through which nothing can be differentiated.

Hjelm et al. 2018, Boundary-seeking generative adversarial networks (https://arxiv.org/abs/1702.08431); Williams 1992,
Simple statistical gradient-following algorithms for connectionist reinforcement learning.

The gradient of E_q[r(x)] is E_q[(r(x) - b) d log q(x)] for any b that x does not enter: samples, what each counts, and
the gradient of their log-probabilities are all that is needed.
"""

from torch import Tensor

from lit_gen.objectives.importance import normalized_weights


def boundary_advantages(log_ratios: Tensor) -> Tensor:
    r"""What each of M samples counts in the gradient towards the reweighted generator.

    With the ratio :math:`w(x) = p(x) / q(x)` that a discriminator estimates, :math:`\tilde p(x) = w(x) g(x | z) /
    \alpha(z)` is where the generator should be; weights that sum to one over the samples of each z stand for
    :math:`w / \alpha` (Hjelm et al. 2018, section 2.2). The gradient of KL(p~ || g) is that of
    :func:`score_surrogate`, but for a bias of order 1/M. All weights less their mean leave it the same on average and
    make it exactly zero where the discriminator cannot tell samples apart.

    Args:
        log_ratios: ``(M, B)``, log p(x) / q(x) of M samples of each z: the discriminator's logit.

    Returns:
        ``(M, B)``, of mean zero over the samples.
    """
    return len(log_ratios) * normalized_weights(log_ratios) - 1


def pooled_boundary_advantages(log_ratios: Tensor) -> Tensor:
    r"""As :func:`boundary_advantages`, with weights that sum to one over all samples of all z.

    The generator reweighted as a whole, :math:`w(x) g(x | z) h(z) / \beta`, is where it should be (Hjelm et al. 2018,
    section 2.2): each z counts by :math:`\alpha(z) / \beta`, the more the rarer its images are among those generated.

    Args:
        log_ratios: ``(M, B)``.

    Returns:
        ``(M, B)``, of mean zero.
    """
    return boundary_advantages(log_ratios.flatten()[:, None]).view_as(log_ratios)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Each reward less the mean of the others of the same z, ``(M, B)``: the policy gradient stays without bias.

    Args:
        rewards: ``(M, B)`` of at least two samples of each z.
    """
    return (rewards - rewards.mean(0)) * (len(rewards) / (len(rewards) - 1))


def score_surrogate(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """A loss whose gradient is the estimate: minus the mean of advantage times log g(x given z), ``(B,)``.

    Args:
        log_probs: ``(M, B)`` of the samples, nats, with a graph.
        advantages: ``(M, B)`` what each counts, without.
    """
    return -(advantages.detach() * log_probs).mean(0)
