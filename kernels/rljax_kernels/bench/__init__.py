"""`python -m rljax_kernels.bench`: time and memory of every kernel beside its reference."""
