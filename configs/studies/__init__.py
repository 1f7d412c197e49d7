"""Studies of several runs: each run is a cell with a config, and a table is a list of cells."""
