"""The experiments of Tables 3, 4 and 5 of the paper, one config each."""
