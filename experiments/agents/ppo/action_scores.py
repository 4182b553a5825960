"""From what the LLM says about candidates to the policy: score rules and their normalisation.

Letters: K candidates of one state, B states, A the longest candidate list among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class CandidateOutputs(NamedTuple):
    """What is known of the K candidates of one state; each field (K,)."""

    logprob: Tensor  # sum over the candidate's tokens of log p(token | prompt, tokens before it), nats
    tokens: Tensor  # number of tokens
    words: Tensor  # number of words separated by white space
    logits: Tensor  # sum over the candidate's tokens of their raw logits


def sum_score(c: CandidateOutputs) -> Tensor:
    """Sum of token log-probabilities (paper, section 3): longer actions are less likely. (K,)"""
    return c.logprob


def token_score(c: CandidateOutputs) -> Tensor:
    """Mean log-probability per token (TWOSOME, token normalisation). (K,)"""
    return c.logprob / c.tokens.clamp(min=1)


def word_score(c: CandidateOutputs) -> Tensor:
    """Sum of log-probabilities per word (TWOSOME, word normalisation). (K,)"""
    return c.logprob / c.words.clamp(min=1)


def logits_score(c: CandidateOutputs) -> Tensor:
    """Raw logits summed, without a log-softmax: the released scorer without its padding bonus. (K,)"""
    return c.logits


def logits_released_score(c: CandidateOutputs) -> Tensor:
    """Raw logits summed, plus 1.0 for every token a candidate is shorter than the longest: the released scorer. (K,)

    PAPER-DIFF(1): the released code fills padding with 1.0, so short actions gain a bonus. For comparison only.
    """
    return c.logits + (c.tokens.max() - c.tokens).to(c.logits.dtype)


def max_scaled_score(c: CandidateOutputs) -> Tensor:
    """p / max p over the products of probabilities; the softmax over it is the flat policy of the paper's v1. (K,)"""
    return torch.exp(c.logprob - c.logprob.max().detach())


# name -> (formula, which of lamorel's built-in outputs it reads)
SCORE_RULES = {
    "sum": (sum_score, ("__score",)),
    "token": (token_score, ("__score", "__tokens")),
    "word": (word_score, ("__score",)),
    "logits": (logits_score, ("__logits",)),
    "logits_released": (logits_released_score, ("__logits", "__tokens")),
    "max_scaled": (max_scaled_score, ("__score",)),
}


def candidate_outputs(outputs: dict[str, Tensor], candidates: Sequence[str]) -> CandidateOutputs:
    """Gather what one state's outputs hold; what was not asked for is filled with zeros."""
    known = next(outputs[key] for key in ("__score", "__logits", "__tokens") if key in outputs)
    nothing = torch.zeros_like(known, dtype=torch.float32)
    words = torch.tensor([len(text.split()) for text in candidates], device=known.device)
    return CandidateOutputs(
        outputs.get("__score", nothing), outputs.get("__tokens", nothing), words, outputs.get("__logits", nothing)
    )


def log_policy(scores: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
    """The policy: log softmax over each state's own candidates of score / temperature (paper, equation 1).

    Args:
        scores: B tensors (K_b,), their lengths may differ.
        temperature: above 0; higher is flatter.

    Returns:
        (B, A) log-probabilities, nats; -inf where a state has fewer than A candidates.
    """
    longest = max(len(s) for s in scores)
    padded = scores[0].new_full((len(scores), longest), float("-inf"))
    rows = torch.arange(len(scores), device=padded.device).repeat_interleave(
        torch.tensor([len(s) for s in scores], device=padded.device)
    )
    columns = torch.cat([torch.arange(len(s), device=padded.device) for s in scores])
    padded = padded.index_put((rows, columns), torch.cat(list(scores)) / temperature)
    return torch.log_softmax(padded, dim=-1)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy of each row of (B, A) log-probabilities, nats; -inf entries (no candidate) count 0. (B,)"""
    finite = log_probs.masked_fill(log_probs == float("-inf"), 0.0)
    return -(log_probs.exp() * finite).sum(dim=-1)
