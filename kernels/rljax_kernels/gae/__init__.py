"""Generalised advantage estimation: `op` holds the function and its reference, `mosaic` the kernel.
"""
