"""TensorFlow, confined to the host: import it from here so that it never claims an accelerator."""

import os
import re

# TensorFlow also raises the errors that it logs, so the log would only clutter our own messages.
# Level 1 is not the user's choice: JAX sets it.
if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# Decoding and resizing do not use oneDNN, and on some CPUs it prints a notice at any log level.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf

# JAX owns the GPU. TensorFlow would otherwise reserve most of its memory at the first op.
tf.config.set_visible_devices([], "GPU")

__all__ = ["reason", "tf"]


# What to cut from a message: names of ops and of tf.data's iterators, the values of an assertion.
_AROUND = (
    (r"\{\{.*?\}\}\s*", ""),
    (r"\s*\[Op:\w*\].*", ""),
    (r"^Error in user-defined function .*? with iterator: \S+: ", ""),
    (r"^assertion failed: \[(.*?)\].*", r"\1"),
    (r"\. One of JPEG, .* required\.?$", ""),  # lists formats that data sets may not hold
)


def reason(error: tf.errors.OpError) -> str:
    """A TensorFlow error's message in one line, without its place in the graph."""
    # In a graph, indented lines surround the message: tracebacks before it, the path to the op
    # after it.
    lines = [line for line in str(error.message).splitlines() if line and not line[0].isspace()]
    text = lines[-1] if lines else type(error).__name__
    for pattern, replacement in _AROUND:
        text = re.sub(pattern, replacement, text)
    return text.rstrip(".")
