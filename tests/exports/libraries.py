"""What read_back.py needs for each format: an environment of its own for each library."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from exports import scene

# Format -> what pip installs.
LIBRARIES = {
    "coco": ["pycocotools==2.0.11", "pillow"],
    "cvat": ["datumaro==1.13.12"],
    "labelme": ["labelme==6.3.1"],
    "labelstudio": ["label-studio-sdk==2.1.2", "pycocotools==2.0.11"],
    # Its requirements bring gigabytes of CUDA. torch and most others are in the environment of the
    # tests, which this one sees; these are not. torchvision is that of torch 2.13.
    "yolo": [
        "--no-deps", "ultralytics==8.4.190", "ultralytics-thop", "opencv-python-headless",
        "polars", "polars-runtime-32", "torchvision==0.28.0",
    ],
}  # fmt: skip
_SEES_OURS = ("yolo",)


def read_back(kind: str, scratch: Path) -> str:
    """Makes the environment of a format in `scratch`, runs read_back.py in it, returns its output.

    Raises:
      subprocess.CalledProcessError: pip or read_back.py has failed.
    """
    python = scratch / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", scratch], check=True)
    if kind in _SEES_OURS:
        theirs = sysconfig.get_path("purelib", vars={"base": str(scratch)})
        Path(theirs, "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [python, "-m", "pip", "install", "--quiet", *LIBRARIES[kind]]
    subprocess.run(install, check=True)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    # No display for Labelme, and no settings in the home folder for Ultralytics.
    environment |= {"QT_QPA_PLATFORM": "offscreen", "YOLO_CONFIG_DIR": str(scratch)}
    done = subprocess.run(
        [python, scene.HERE / "read_back.py", kind],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout
