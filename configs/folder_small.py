"""Your own images on a CPU: the network and the settings of the CamVid study, from scratch.

    python main.py --config=configs/folder_small.py --workdir=runs/mine --config.data.dir=DIR \
        --config.data.num_classes=NUMBER

The folder is that of `configs/folder.py`, docs/own_images.md how to go on. For a first look at
images of yours: nothing is downloaded, and the network sees them at a short edge of 96 pixels.
Hardware: one CPU core. Time: some 35 minutes with images of CamVid's size (480 x 360); larger ones
take longer to decode. Score: depends on the images.
"""

from ml_collections import ConfigDict

from configs import camvid_eighth, folder


def get_config() -> ConfigDict:
    config = camvid_eighth.get_config()
    config.num_steps = 12_000  # on CamVid the gain came after 6,000 (docs/study.md)
    of_folder = folder.get_config().data
    for key in ("name", "dir", "num_classes", "labeled_split", "unlabeled_split"):
        config.data[key] = of_folder[key]
    config.data.diagnostic_labels = False  # unlabelled photos have none
    return config
