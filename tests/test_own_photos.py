"""A newcomer's story: photos and a few Labelme files; train, predict, correct, train on."""

from __future__ import annotations

import json
import shutil

import labelled_scenes as scenes
import numpy as np
import pytest
import tiny
from PIL import ExifTags, Image
from test_labelled_folders import masks_of
from test_regions import MASKS, inland, specks
from test_written_annotations import CLASSES, READERS, annotate

from configs import folder
from data import catalog
from data.dataset import Dataset
from data.masks import decode_mask
from data.orientation import SWAPPED
from rc2l_jax.evaluation.compare_runs import compare_runs
from rc2l_jax.evaluation.evaluate_run import evaluate_checkpoint
from rc2l_jax.prediction.annotations import Annotator
from rc2l_jax.prediction.files import Prediction, write_prediction
from rc2l_jax.prediction.inputs import find
from rc2l_jax.prediction.photos import read
from rc2l_jax.prediction.regions import tolerance
from rc2l_jax.training.train import train_and_evaluate


def folder_config(root, prepared):
    config = folder.get_config()
    config.data.dir, config.data.prepared_dir = str(root), str(prepared)
    config.data.unlabeled_split = ""
    return config


# What is predicted comes back.


def as_labels(output, root, kind: str) -> None:
    """Puts annotations where a person would put them after correcting them in the tool."""
    written, labels = output / "annotations" / kind, root / "labels" / "train"
    labels.mkdir(parents=True)
    if kind == "yolo":
        shutil.copytree(written / "labels", labels, dirs_exist_ok=True)
        shutil.copy(written / "data.yaml", root)
    elif kind == "labelstudio":
        tasks = json.loads((written / "tasks.json").read_text())
        for task in tasks:  # a submitted prediction is exported as an annotation
            task["annotations"] = task.pop("predictions")
        (labels / "tasks.json").write_text(json.dumps(tasks))
    elif kind == "labelme":
        shutil.copytree(written, labels, dirs_exist_ok=True)
    else:
        suffix = {"coco": "json", "cvat": "xml"}[kind]
        shutil.copy(written / f"annotations.{suffix}", labels)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", sorted(MASKS.keys() - {"background"}))  # which nobody draws
def test_written_annotations_are_read_as_the_same_masks(tmp_path, kind, name):
    ids, root, output = MASKS[name], tmp_path / "data", tmp_path / "out"
    scenes.photo(root / "images" / "train" / "one.jpg", 0, ids.shape)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    annotate(output, kind, "one", ids).finish()
    as_labels(output, root, kind)
    check_read_back(root, tmp_path / "prepared", ids)


def check_read_back(root, prepared, ids) -> Dataset:
    """Checks that the mask of the photo "one" is `ids`, but for simplified outlines."""
    dataset = catalog.open_dataset(folder_config(root, prepared).data)
    found = masks_of(dataset)["train/one"]
    assert found.shape == ids.shape
    far = inland(ids, tolerance(ids.shape)) & ~specks(ids)
    assert (found == ids)[far].all()
    return dataset


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_annotations_of_a_turned_photo_are_read_as_the_same_masks(tmp_path, kind, orientation):
    ids, root, output = MASKS["island"], tmp_path / "data", tmp_path / "out"
    file = root / "images" / "train" / "one.jpg"
    file.parent.mkdir(parents=True)
    size = ids.shape[::-1] if orientation in SWAPPED else ids.shape
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", size[::-1]).save(file, exif=exif)
    scenes.write(root / "classes.txt", "\n".join(CLASSES))
    (photo,) = find(str(file.parent), output).photos
    assert photo.size == ids.shape and photo.orientation == orientation
    annotator = Annotator(output, kind, CLASSES, "net")
    prediction = Prediction(ids, np.full(ids.shape, 0.5, np.float16), None)
    write_prediction(
        output,
        photo.name,
        read(photo),
        prediction,
        CLASSES,
        {"image": str(file), "model": "net"},
        lambda made: annotator.write(photo, photo.name, made),
    )
    annotator.finish()
    as_labels(output, root, kind)
    dataset = check_read_back(root, tmp_path / "prepared", ids)
    both_ways = "taken as upright, as it fits both ways" if size == ids.shape else "upright already"
    assert any(note.endswith(f"their masks: 1 {both_ways}") for note in dataset.notes)


# The story.


def overrides(root, runs) -> dict[str, object]:
    """What is set for a network that compiles in seconds."""
    keys = {k: v for k, v in tiny.COMMAND_LINE.items() if "shapes" not in k}
    return (
        keys
        | {"init_from": "", "dtype": "float32", "num_steps": 3, "warmup_steps": 1}
        | {"batch_size": 8, "unlabeled_batch_size": 16, "unsup_start_step": 0, "num_pictures": 2}
        | {"pseudo.source": "semantic", "model.norm": "group", "data.eval_short_edge": 32}
        | {"data.dir": str(root), "data.prepared_dir": str(runs / "prepared")}
    )


def tiny_config(root, runs):
    config = folder.get_config()
    config.update_from_flattened_dict(overrides(root, runs))
    return config


def check_command(root, runs) -> list[str]:
    """The arguments by which a person checks the folder that `tiny_config` trains on."""
    keys = [f"--config.{key}={value}" for key, value in overrides(root, runs).items()]
    return ["--config=configs/folder.py", "--mode=check", *keys]


def photos(folder, numbers) -> None:
    for number in numbers:
        scenes.photo(folder / f"{number}.JPG", number)


@pytest.mark.slow
def test_from_labelme_to_corrected_predictions_without_a_script(tmp_path, capsys, command_line):
    """In the layout of docs/own_images.md, without val and classes.txt."""
    root, runs, new = tmp_path / "mine", tmp_path / "runs", tmp_path / "new"
    photos(root / "images" / "train", range(10))
    photos(root / "images" / "unlabeled", range(10, 14))
    photos(new, range(20, 23))
    labels = root / "labels" / "train"
    for number in range(10):
        scenes.write(labels / f"{number}.json", scenes.labelme(f"{number}.JPG", number % 5))

    command_line(check_command(root, runs))
    said = capsys.readouterr().out
    assert "config and data are fine" in said and "1 Labelme; classes from the labels" in said
    first = train_and_evaluate(tiny_config(root, runs), runs / "mine")
    assert list(first["teacher"]["iou"]) == ["background", "road", "tree"]
    # What was held back from training is held back again.
    again = evaluate_checkpoint(tiny_config(root, runs), runs / "mine")
    assert again["teacher"] == first["teacher"]
    paths = [f"--workdir={runs / 'mine'}", f"--input={new}", f"--output={tmp_path / 'out'}"]
    command_line(["--mode=predict", *paths, "--annotations=labelme"])

    # A person corrects one of the three files, and puts it and its photo to the others.
    file = tmp_path / "out" / "annotations" / "labelme" / "21.json"
    draft = json.loads(file.read_text())
    draft["shapes"] = scenes.labelme("21.JPG", 1)["shapes"]
    (labels / "21.json").write_text(json.dumps(draft))
    shutil.copy(new / "21.JPG", root / "images" / "train")

    more = tiny_config(root, runs)
    more.init_from = str(runs / "mine")
    command_line([*check_command(root, runs), f"--config.init_from={more.init_from}"])
    assert train_and_evaluate(more, runs / "more")["step"] == 3
    config = json.loads((runs / "more" / "config.json").read_text())
    assert config["data"]["num_classes"] == 3
    compare_runs(
        [f"mine={runs / 'mine'}", f"more={runs / 'more'}"], tmp_path / "compared", images=1
    )
    assert (tmp_path / "compared" / "grid.png").is_file()
    dataset = catalog.open_dataset(tiny_config(root, runs).data)
    found = masks_of_labelled(dataset)
    assert len(found) == 11
    np.testing.assert_array_equal(found["21"], scenes.mask(1))


def masks_of_labelled(dataset) -> dict[str, np.ndarray]:
    """Id -> mask, of both labelled splits."""
    found = {}
    for split in ("train", "val"):
        keys = [(split, index) for index in range(len(dataset.ids.splits[split]))]
        _, labels = dataset.fetch(keys, labels=True)
        found |= {dataset.ids.id(key): decode_mask(x) for key, x in zip(keys, labels)}
    return found
