"""The switch that the small operations share."""

IMPLEMENTATIONS = ("xla", "mosaic")


def check(operation: str, implementation: str | None) -> str:
  """The implementation to use. None is "xla": no kernel of these has a measured win yet.

  Raises:
    ValueError: an unknown name.
  """
  if implementation is not None and implementation not in IMPLEMENTATIONS:
    raise ValueError(f"{operation} has no implementation {implementation!r}; "
                     f"there is: {', '.join(IMPLEMENTATIONS)}")
  return implementation or "xla"
