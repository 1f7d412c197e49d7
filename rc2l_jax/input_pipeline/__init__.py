"""From a data set's records to the batches of a training step or of an evaluation."""
