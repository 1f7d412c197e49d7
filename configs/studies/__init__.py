"""Studies of several runs each: a cell is a config, a table is a list of cells."""
