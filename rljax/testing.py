"""What tests of rljax and of papers share: counting compilations, walking jaxprs."""

import contextlib

import jax


class Compilations:
  """Number of programs XLA compiled since the context was entered."""

  count = 0


@contextlib.contextmanager
def count_compilations():
  """Counts compilations of this process: `with count_compilations() as c: ...; c.count`."""
  counter = Compilations()

  def listen(event, duration, **_):
    del duration
    if event == "/jax/core/compile/backend_compile_duration":
      counter.count += 1

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield counter
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def jaxprs(jaxpr):
  """A closed or open jaxpr and all that are nested in it."""
  jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
  yield jaxpr
  for eqn in jaxpr.eqns:
    for value in eqn.params.values():
      for inner in value if isinstance(value, tuple | list) else [value]:
        if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
          yield from jaxprs(inner)


def arrays_over(jaxpr, tokens: int, vocabulary: int) -> list[str]:
  """Intermediate arrays that hold a number per token and vocabulary entry.

  Args:
    jaxpr: of a whole step. tokens: B * T (or T alone to be strict). vocabulary: V.

  Returns:
    "primitive[shape]" of every output with V among its dimensions and at least tokens * V elements.
  """
  found = []
  for j in jaxprs(jaxpr):
    for eqn in j.eqns:
      for var in eqn.outvars:
        shape = getattr(var.aval, "shape", ())
        if vocabulary in shape and var.aval.size >= tokens * vocabulary:
          found.append(f"{eqn.primitive}{list(shape)}")
  return found
