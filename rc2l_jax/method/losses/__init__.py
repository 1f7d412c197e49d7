"""The losses: mask terms, the supervised loss (Eq. 1) and the region-level losses (Eqs. 5-10)."""
