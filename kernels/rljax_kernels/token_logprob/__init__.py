"""Token log-probabilities: `op` is the door, `xla` the reference, `mosaic` and `triton` kernels."""
