"""Kernels of RL post-training, each beside its plain-XLA reference. Needs nothing but jax.

token_logprob.op: log-probabilities of tokens that never see the vocabulary.
"""
