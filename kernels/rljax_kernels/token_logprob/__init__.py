"""Token log-probabilities: `op` is the door, `xla` the reference, `mosaic` the TPU kernel."""
