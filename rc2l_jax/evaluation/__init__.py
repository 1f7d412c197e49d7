"""Evaluation: mIoU of a network at each label's own resolution, and comparisons of runs."""
