"""From a network to mIoU at each label's own resolution, and runs beside each other."""
