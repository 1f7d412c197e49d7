"""A config file that returns the config of a run: `--config=rc2l_jax/run/of_run.py:RUN`.

main.py uses it when --config is left out and --workdir is a run.
"""

from ml_collections import ConfigDict

from rc2l_jax.run.directory import run_path
from rc2l_jax.run.stored_config import run_config


def get_config(run: str) -> ConfigDict:
    """Returns the config of the run directory `run`; ml_collections calls this by its name."""
    return run_config(run_path(run))
