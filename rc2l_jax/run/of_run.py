"""The config of a run, as its directory keeps it: `--config=rc2l_jax/run/of_run.py:RUN`.

main.py reads it by itself where --config is left out and --workdir is a run.
"""

from ml_collections import ConfigDict

from rc2l_jax.run.directory import run_path
from rc2l_jax.run.stored_config import run_config


def get_config(run: str) -> ConfigDict:
    """The config of the run directory `run`, as ml_collections asks a config file for it."""
    return run_config(run_path(run))
