"""The losses: mask terms, Eq. 1 and the region-level terms."""
