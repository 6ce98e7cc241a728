"""The clipped policy-gradient loss per row: `op` is the door, `mosaic` the TPU kernel."""
