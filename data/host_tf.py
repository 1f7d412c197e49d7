"""TensorFlow, confined to the host: import it from here so that it never claims an accelerator."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no start-up banner; warnings stay

import tensorflow as tf

# JAX owns the GPU. TensorFlow would otherwise reserve most of its memory at the first op.
tf.config.set_visible_devices([], "GPU")

__all__ = ["tf"]
