"""A newcomer's story: photos and a few Labelme files; train, predict, correct, train on."""

from __future__ import annotations

import json
import shutil

import labelled_scenes as scenes
import numpy as np
import pytest
import tiny
from test_labelled_folders import masks_of
from test_regions import MASKS, inland, specks
from test_written_annotations import CLASSES, READERS, annotate

from configs import folder
from data import catalog
from data.masks import decode_mask
from rc2l_jax.evaluation.compare_runs import compare_runs
from rc2l_jax.evaluation.evaluate_run import evaluate_checkpoint
from rc2l_jax.prediction.predict import predict_folder
from rc2l_jax.prediction.regions import tolerance
from rc2l_jax.training import check
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
    dataset = catalog.open_dataset(folder_config(root, tmp_path / "prepared").data)
    found = masks_of(dataset)["train/one"]
    assert found.shape == ids.shape
    far = inland(ids, tolerance(ids.shape)) & ~specks(ids)
    assert (found == ids)[far].all()


# The story.


def tiny_config(root, runs):
    """The command's config, with a network that compiles in seconds."""
    config = folder_config(root, runs / "prepared")
    keys = {k: v for k, v in tiny.COMMAND_LINE.items() if "shapes" not in k}
    config.update_from_flattened_dict(
        keys
        | {"init_from": "", "dtype": "float32", "num_steps": 3, "warmup_steps": 1}
        | {"batch_size": 8, "unlabeled_batch_size": 16, "unsup_start_step": 0, "num_pictures": 2}
        | {"pseudo.source": "semantic", "model.norm": "group", "data.eval_short_edge": 32}
    )
    config.data.unlabeled_split = "unlabeled"
    return config


def photos_with_labelme(root, numbers, labelled) -> None:
    for number in numbers:
        scenes.photo(root / f"{number}.JPG", number)
        if number in labelled:
            seed = number % 5
            scenes.write(root / f"{number}.json", scenes.labelme(f"{number}.JPG", seed))


@pytest.mark.slow
def test_from_labelme_to_corrected_predictions_without_a_script(tmp_path, capsys):
    root, runs, new = tmp_path / "mine", tmp_path / "runs", tmp_path / "new"
    photos_with_labelme(root, range(14), labelled=range(10))
    photos_with_labelme(new, range(20, 23), labelled=())

    check.check(tiny_config(root, runs))
    said = capsys.readouterr().out
    assert "config and data are fine" in said and "1 Labelme; classes from the labels" in said
    first = train_and_evaluate(tiny_config(root, runs), runs / "mine")
    assert list(first["teacher"]["iou"]) == ["background", "road", "tree"]
    # What was held back from training is held back again.
    again = evaluate_checkpoint(tiny_config(root, runs), runs / "mine")
    assert again["teacher"] == first["teacher"]
    assert predict_folder(str(new), tmp_path / "out", workdir=runs / "mine", annotations="labelme")

    # A person corrects one of the three files, and puts it with its photo beside the others.
    file = tmp_path / "out" / "annotations" / "labelme" / "21.json"
    draft = json.loads(file.read_text())
    draft["shapes"] = scenes.labelme("21.JPG", 1)["shapes"]
    file.write_text(json.dumps(draft))
    for source in (file, new / "21.JPG"):
        shutil.copy(source, root)

    more = tiny_config(root, runs)
    more.init_from = str(runs / "mine")
    check.check(more)
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
