"""A bit that the disk has flipped in a checkpoint: rc2l_jax/run/checksums.py in Orbax's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: Orbax's event loops complain for long after errors.
_FLIP = """
import json, random, sys
from pathlib import Path
import jax, numpy as np
from rc2l_jax.run.checkpoints import CheckpointError, Checkpoints
from test_checkpoints import make_state, metadata

saved, template, random_ = make_state(5, width=300), make_state(0, width=300), random.Random(0)
workdir = Path(sys.argv[1])
with Checkpoints(workdir) as checkpoints:
    checkpoints.save(saved, metadata(5))
found = []
for path in sorted((workdir / "checkpoints").rglob("*")):
    whole = path.read_bytes() if path.is_file() else b""
    for _ in range(12 if whole else 0):
        broken = bytearray(whole)
        broken[random_.randrange(len(broken))] ^= 1 << random_.randrange(8)
        path.write_bytes(broken)
        try:
            with Checkpoints(workdir) as checkpoints:
                state, data = checkpoints.restore(template)
            pairs = zip(jax.tree.leaves(state), jax.tree.leaves(saved), strict=True)
            same = data == metadata(5) and all(np.array_equal(a, b) for a, b in pairs)
            found.append("same" if same else "other")
        except CheckpointError as error:
            found.append(str(error))
        path.write_bytes(whole)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path):
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    command = [sys.executable, "-c", _FLIP, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 100 and "other" not in found
    errors = [text for text in found if text != "same"]
    assert sum("not as it was saved, so the disk has changed it" in text for text in errors) > 5
    assert len(errors) < len(found)  # such as in files that nothing is read from
    for text in errors:
        assert "checkpoints/5 cannot be read" in text and "move its folder away to go on" in text
        assert "\n" not in text
