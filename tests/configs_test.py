"""Every config, with every arm and form, loads, binds and builds; an arm changes what it lists."""

import json
import pathlib

import jax
import numpy as np
import pytest

from rljax import config as config_lib
from rljax import packed
from rljax.classic import loop as classic_loop
from rljax.data import collate
from rljax.reproduce import papers
from rljax.train import build, loop

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.py"))
QUICK = ("configs/quickstart.py", "configs/reward_model.py")  # run by `make test`, too
PAPERS = [f for f in FILES if f.startswith("configs/papers/")]
DATA = str(ROOT / "tests/data/fixtures/word_problems.jsonl")
FILES_OF = {"rewritten": "rewritten.jsonl", "comparisons": "comparisons.jsonl"}  # others: DATA
COLUMNS = {"reference", "baseline_B", "seat_B", "guided_B", "win_rate", "type_B", "role_B",
           "target", "task_B", "blind_B"}  # that some slot adds

# config.json of the models that papers name, without which nothing can be traced at their size.
_QWEN = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
         "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": False,
         "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
         "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
MODELS = {
    "Qwen/Qwen2.5-7B": _QWEN,
    "Qwen/Qwen2.5-Math-7B": {**_QWEN, "rope_theta": 1e4},
    "Qwen/Qwen2.5-3B": {
        **_QWEN, "tie_word_embeddings": True, "vocab_size": 151936, "hidden_size": 2048,
        "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 2},
    "Qwen/Qwen2.5-1.5B-Instruct": {
        **_QWEN, "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
        "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "Qwen/Qwen3-8B-Base": {
        **_QWEN, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128,
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8},
    "mistralai/Mistral-7B-Instruct-v0.2": {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "tie_word_embeddings": False,
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
    "google/gemma-2-2b": {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "vocab_size": 256000,
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "query_pre_attn_scalar": 256,
        "sliding_window": 4096},
    "meta-llama/Llama-3.2-3B-Instruct": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 5e5, "tie_word_embeddings": True, "head_dim": 128,
        "vocab_size": 128256, "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
        "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}},
}


def arms(path):
  return dict(getattr(config_lib.load_file(path), "ARMS", {}))


def with_data(config):
  """Points task sets that read a file at the fixture."""
  for leaf in leaves([config.get("tasks"), *config.evals.values()]):
    if "path" in leaf:
      name = next((f for key, f in FILES_OF.items() if key in leaf.fn), "")
      leaf.path = str(ROOT / "tests/data/fixtures" / name) if name else DATA
    if "test_share" in config_lib._keywords(leaf.fn) and "path" in leaf:
      leaf.test_share = 0.5
  return config


def leaves(nodes):
  """All leaves, those inside of others too."""
  for node in nodes:
    if isinstance(node, list | tuple):
      yield from leaves(node)
    elif hasattr(node, "values"):
      if config_lib.is_leaf(node):
        yield node
      yield from leaves(node.values())


def cases():
  for path in FILES:
    yield path
    yield f"{path}:runlocal"
    for arm in arms(path):
      yield pytest.param(f"{path}:{arm}", marks=pytest.mark.slow)


@pytest.mark.parametrize("spec", list(cases()))
def test_every_config_and_arm_binds(spec):
  config = with_data(config_lib.load(spec))
  if "loop" in config:
    trace_classic(config)
    return
  if any("hf" in role.model.fn for role in config.roles.values() if role.model is not None):
    pytest.skip("needs a Hugging Face checkpoint folder; its :runlocal form builds")
  trace(build.build(config))


def trace_classic(config):
  """Traces the agent's steps and all that its evaluations measure."""
  run = classic_loop.build(config)
  keys = run.keys("any")
  states = jax.eval_shape(run.init, keys)
  new, metrics = jax.eval_shape(run.chunk, states, keys)
  assert "reward/mean" in metrics and run.measures
  jax.tree.map(lambda a, b: None if a.shape == b.shape else pytest.fail(f"{a} {b}"), new, states)
  for measure in run.measures.values():
    assert all(x.shape == () for x in jax.eval_shape(measure, states, keys).values())


def trace(run):
  """Traces the preparation and the step of every update at their real shapes, without memory."""
  states = run.roles.abstract()
  params = {n: getattr(s, "params", s) for n, s in states.items()}
  for update in run.updates.values():
    sizes = {2: update.shapes.B, 5: update.shapes.S, 3: update.shapes.T}  # stand-ins for B, S, T
    small = collate.collate([], shapes=collate.Shapes(2, 5, 3, update.shapes.media))
    columns = {c: np.zeros(2, np.float32) for c in COLUMNS}
    small = small.replace(extras={**small.extras, **columns})
    def real(x, sizes=sizes):
      ours = 1 if x.ndim > 2 else x.ndim  # of media only the rows are counted here
      return jax.ShapeDtypeStruct((*(sizes[n] for n in x.shape[:ours]), *x.shape[ours:]), x.dtype)
    batch = jax.tree.map(real, small)
    owner = run.roles.owner(update.role)
    ref = params[run.roles.owner(update.ref)] if update.ref else None
    value = params[run.roles.owner(update.value)] if update.value else None
    batch = jax.eval_shape(update.prepare, params[owner], ref, batch, value)
    if update.slice:
      order = jax.ShapeDtypeStruct((update.shapes.B,), np.int32)
      batch = jax.eval_shape(update.slice, batch, order, jax.ShapeDtypeStruct((), np.int32))
    state, metrics = jax.eval_shape(update.step, states[owner], batch)
    assert jax.eval_shape(packed.unpack, metrics)["loss/total"].total.shape == ()
    jax.tree.map(lambda a, b: None if a.shape == b.shape else pytest.fail(f"{a} {b}"),
                 state.params, states[owner].params)


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPERS)
def test_the_scale_form_builds_and_traces_with_the_papers_model(path, tmp_path):
  paper, config = papers.load(pathlib.Path(path).stem), config_lib.load(f"{path}:scale")
  if "loop" in config:
    trace_classic(config)
    return
  (tmp_path / "config.json").write_text(json.dumps(MODELS[paper.model]))
  config = with_data(config)
  assert "hf" in config.roles.policy.model.fn
  byte = config_lib.fn("rljax.data.text:byte")  # its vocabulary is the checkpoint's
  if "tokenizer" in config.tokenizer:  # one of images, around another
    assert "hf" in config.tokenizer.tokenizer.fn
    config.tokenizer.tokenizer = byte
  else:
    assert "hf" in config.tokenizer.fn
    config.tokenizer = byte
  config.roles.policy.model.path = str(tmp_path)
  trace(build.build(config))


@pytest.mark.parametrize("path", PAPERS)
def test_a_papers_claims_are_well_formed(path):
  paper = papers.load(pathlib.Path(path).stem)
  assert paper.claims and paper.plot and paper.seeds >= 3
  assert {c.kind for c in paper.claims} & {"claim"}
  for test in paper.exact:
    file, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(), test
  quick = config_lib.load(f"{path}:quick")
  assert quick.steps <= config_lib.load(path).steps


@pytest.mark.parametrize("path", FILES)
def test_an_arm_changes_exactly_what_it_lists(path):
  base = config_lib.to_dict(config_lib.load(path))
  for name, diff in arms(path).items():
    changed = config_lib.differing(base, config_lib.to_dict(config_lib.load(f"{path}:{name}")))
    keys = {c.partition(": ")[0] for c in changed}
    assert keys and all(any(k == d or k.startswith(d + ".") for d in diff) for k in keys)
    assert all(any(k == d or k.startswith(d + ".") for k in keys) for d in diff), (name, keys)


@pytest.mark.parametrize("path", FILES)
def test_docstring_has_a_link_and_the_command(path):
  doc = config_lib.load_file(path).__doc__
  assert "https://" in doc and "rljax-" in doc and path in doc
  assert (ROOT / path).read_text().count("\n") < 120


@pytest.mark.parametrize("path", [
    f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FILES])
def test_runlocal_runs_a_step_and_resumes_for_another(path, tmp_path):
  for steps in (1, 2):
    config = with_data(config_lib.load(path + ":runlocal", {"steps": steps}))
    loop.train(config, str(tmp_path), quiet=True)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["steps"] == steps and result["status"] == "done"
  rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(r)["step"] for r in rows] == ([0, 1, 2] if config.evals else [0, 1])
