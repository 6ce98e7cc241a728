"""Packaging. `pip install -e .` is enough on a CPU; extras add accelerators or optional readers."""

import pathlib

import setuptools

here = pathlib.Path(__file__).parent
version = (here / "rljax/__init__.py").read_text().split('__version__ = "')[1].split('"')[0]

data = ["pyarrow", "datasets", "tensorflow-datasets", "array-record", "importlib_resources",
        "reasoning-gym"]
rewards = ["math-verify", "sacrebleu", "rouge-score"]
envs = ["bm25s", "sqlglot", "open_spiel", "textarena", "gymnasium"]

setuptools.setup(
    name="rljax",
    version=version,
    description="Reinforcement-learning post-training of language models in JAX, for TPU and GPU",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["rljax", "rljax.*"])
    + setuptools.find_packages("kernels"),
    package_dir={"rljax_kernels": "kernels/rljax_kernels"},
    package_data={"rljax_kernels.token_logprob": ["blocks.json"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11",
        "chex>=0.1.90",
        "transformers>=5",
        "jinja2>=3.1",  # what renders chat templates
        "ml-collections>=1.1",
        "numpy>=2",
        "scipy>=1.13",
        "tensorboardX>=2.6",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10"],
        "cuda": ["jax[cuda12]>=0.10"],
        "data": data,
        "rewards": rewards,
        "envs": envs,
        "reproduce": ["matplotlib"],
        "test": [*data, *rewards, *envs, "matplotlib", "pytest", "pytest-xdist", "hypothesis",
                 "nbclient", "ipykernel", "ruff", "libtpu; sys_platform == 'linux'"],
        # Tests against Hugging Face's own models need it; gigabytes where a CUDA build comes.
        "torch": ["torch==2.13.0"],
    },
    entry_points={"console_scripts": [
        "rljax-train = rljax.main:train",
        "rljax-eval = rljax.main:evaluate",
        "rljax-export = rljax.main:export",
        "rljax-generate = rljax.main:generate",
        "rljax-plan = rljax.main:plan",
        "rljax-report = rljax.main:report",
        "rljax-launch = rljax.launch:main",
        "rljax-reproduce = rljax.reproduce.cli:main",
    ]},
)
