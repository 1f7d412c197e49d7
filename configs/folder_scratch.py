"""Your own images on a CPU: the network and the settings of the CamVid study, from scratch.

    python main.py --config=configs/folder_small.py --workdir=runs/mine --config.data.dir=DIR \
        --config.data.num_classes=NUMBER

DIR holds what it does for `configs/folder.py`, and docs/own_images.md says how to go on. This is
for a first look: nothing is downloaded, and images are shrunk to a short edge of 96 pixels (96 to
144 in training). Hardware: one CPU core. Time: some 35 minutes with images of CamVid's size (480 x
360); larger ones take longer to decode. Score: depends on the images.
"""

from ml_collections import ConfigDict

from configs import camvid_eighth, folder


def get_config() -> ConfigDict:
    config = camvid_eighth.get_config()
    config.num_steps = 12_000  # on CamVid RC²L gained after step 6,000 (docs/study.md)
    of_folder = folder.get_config().data
    for key in ("name", "dir", "num_classes", "labeled_split", "unlabeled_split"):
        config.data[key] = of_folder[key]
    config.data.diagnostic_labels = False  # unlabelled photos have none
    return config
