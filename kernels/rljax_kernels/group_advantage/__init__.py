"""Group-relative advantages: `op` holds the function and its reference, `mosaic` the TPU kernel."""
