"""Annotations of predicted photos, for labelling tools: one module for each format."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data.whole_files import whole_file
from rc2l_jax.prediction.annotations import coco, cvat, labelme, labelstudio, yolo
from rc2l_jax.prediction.annotations.scene import Format, Scene
from rc2l_jax.prediction.files import Prediction, list_path, origin_of, read_prediction
from rc2l_jax.prediction.photos import Photo
from rc2l_jax.prediction.regions import Region, find_regions

FORMATS: Mapping[str, Format] = {
    "coco": coco.FORMAT,
    "labelme": labelme.FORMAT,
    "yolo": yolo.FORMAT,
    "cvat": cvat.FORMAT,
    "labelstudio": labelstudio.FORMAT,
}


@dataclasses.dataclass(frozen=True)
class Annotator:
    """Writes annotations in one format.

    Attributes:
      output: the folder of all results.
      kind: a key of `FORMATS`.
      class_names: K names.
      model: the network's title.
    """

    output: Path
    kind: str
    class_names: Sequence[str]
    model: str

    def path(self, name: str) -> Path:
        """Returns the path of the file for the photo of this name."""
        return _folder(self.output) / FORMATS[self.kind].path.format(name)

    def write(self, photo: Photo, name: str, prediction: Prediction) -> None:
        """Writes the annotations of one photo, whose results have this name."""
        regions = find_regions(prediction.ids, prediction.confidence)
        self._write(photo, name, prediction.ids.shape, regions)

    def write_former(self, photo: Photo, name: str) -> None:
        """Writes the annotations of a photo whose results are complete, from its mask.

        The confidence of its pixels is gone, so each region has the score of its class.

        Raises:
          ResultError: the results cannot be used.
        """
        ids, scores = read_prediction(self.output, name, photo.size, len(self.class_names))
        regions = [
            dataclasses.replace(region, score=scores.get(region.class_id))
            for region in find_regions(ids)
        ]
        self._write(photo, name, ids.shape, regions)

    def finish(self) -> None:
        """Writes the files for all photos of this network that are in the folder by now."""
        finish = FORMATS[self.kind].finish
        if finish is not None:
            finish(_folder(self.output), self.class_names, self._parts)

    def _write(
        self, photo: Photo, name: str, size: tuple[int, int], regions: Sequence[Region]
    ) -> None:
        scene = Scene(
            photo=photo.path,
            file_name=photo.file_name,
            folder=photo.folder,
            size=size,
            class_names=self.class_names,
            model=self.model,
            regions=regions,
        )
        path = self.path(name)
        with whole_file(path, one_writer=True) as partial:
            partial.write_text(FORMATS[self.kind].describe(scene, path), encoding="utf-8")

    def _parts(self) -> Iterator[str]:
        """Reads the files of all photos whose results are complete, by name.

        Those of another network are left out: the ids in them may be of other classes.
        """
        before, _, after = FORMATS[self.kind].path.partition("{}")
        folder = _folder(self.output) / before
        for path in sorted(folder.rglob(f"*{after}")):
            name = path.relative_to(folder).as_posix().removesuffix(after)
            is_done = list_path(self.output, name).is_file()
            if is_done and origin_of(self.output, name).model in ("", self.model):  # "": an old one
                yield path.read_text(encoding="utf-8")


def forget_parts(output: Path, name: str) -> None:
    """Deletes what was made of a photo's former mask, unless it is a file that people correct."""
    folder = _folder(output)
    for known in FORMATS.values():
        part = folder / known.path.format(name)
        if known.joint and os.path.lexists(part):
            (folder / known.joint).unlink(missing_ok=True)  # first, so that a kill leaves no trace
            part.unlink(missing_ok=True)


def _folder(output: Path) -> Path:
    return output / "annotations"
