"""Is a mode of main.py now; says so to whoever has the old command in a script."""

import sys

sys.exit(
    "benchmarks/compare_runs.py is a mode now: "
    "python main.py --mode=compare --runs=NAME=RUN,NAME=RUN --output=DIR "
    "(--choose=differing is --differing, --which=best is --best)"
)
