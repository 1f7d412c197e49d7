"""TensorFlow, confined to the host: import it from here so that it never claims an accelerator."""

import os
import re

# What goes wrong is raised as well; logged, it would stand between our own messages. JAX sets 1.
if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# Decoding and resizing make no use of it; on some CPUs it announces itself, whatever the log level.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf

# JAX owns the GPU. TensorFlow would otherwise reserve most of its memory at the first op.
tf.config.set_visible_devices([], "GPU")

__all__ = ["reason", "tf"]


# What stands around a message: names of ops, of tf.data's iterators, an assertion's values.
_AROUND = (
    (r"\{\{.*?\}\}\s*", ""),
    (r"\s*\[Op:\w*\].*", ""),
    (r"^Error in user-defined function .*? with iterator: \S+: ", ""),
    (r"^assertion failed: \[(.*?)\].*", r"\1"),
    (r"\. One of JPEG, .* required\.?$", ""),  # more kinds than data sets may hold
)


def reason(error: tf.errors.OpError) -> str:
    """What a TensorFlow error says, in one line and without where in the graph it was."""
    # In a graph tracebacks come before the message, and the way to the op behind it, all indented.
    lines = [line for line in str(error.message).splitlines() if line and not line[0].isspace()]
    text = lines[-1] if lines else type(error).__name__
    for pattern, replacement in _AROUND:
        text = re.sub(pattern, replacement, text)
    return text.rstrip(".")
