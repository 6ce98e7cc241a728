"""Hot operations, each one function over several implementations: `implementation=` chooses.

The plain-XLA references and the kernels stand side by side in `rljax_kernels`, held to one contract
by tests/kernels; the rest of rljax calls them through here only. `implementation=None` takes a
kernel where it can be used and pays, and falls back to the reference; a named implementation that
cannot be used is a ValueError.
"""

from rljax_kernels.token_logprob import op as token_logprob_op

Placement = token_logprob_op.Placement
token_logprobs = token_logprob_op.token_logprobs
