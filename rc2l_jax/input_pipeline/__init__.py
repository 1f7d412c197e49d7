"""Turns a data set's records into the batches of training steps and evaluations, on the host."""
