"""Tells users of this former command that it has become a mode of main.py."""

import sys

sys.exit(
    "benchmarks/compare_runs.py is a mode now: "
    "python main.py --mode=compare --runs=NAME=RUN,NAME=RUN --output=DIR "
    "(--choose=differing is --differing, --which=best is --best)"
)
