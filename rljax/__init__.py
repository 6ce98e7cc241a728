"""rljax: reinforcement-learning post-training of language models in JAX.

Importing this package imports nothing else, so that configs load in milliseconds.
"""

__version__ = "0.1.0"
