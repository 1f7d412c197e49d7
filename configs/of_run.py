"""The config of a run, as its directory keeps it: `--config=configs/of_run.py:RUN`.

main.py reads it by itself where --config is left out and --workdir is a run.
"""

from ml_collections import ConfigDict

from rc2l_jax.networks import run_config
from rc2l_jax.rundir import run_path


def get_config(run: str) -> ConfigDict:
    return run_config(run_path(run))
