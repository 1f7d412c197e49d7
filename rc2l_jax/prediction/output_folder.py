"""The folder of all results: whether it may be written, and what an earlier command left in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from data.errors import counted
from rc2l_jax.prediction import inputs
from rc2l_jax.prediction.files import is_written, list_path, origin_of
from rc2l_jax.prediction.photos import Photo
from rc2l_jax.prediction.ranking import COLUMNS
from rc2l_jax.reports.log import say
from rc2l_jax.reports.page import PAGE, is_page
from rc2l_jax.reports.photo_ranking import RANKING, is_ranking


class PredictError(ValueError):
    """Inputs or an output folder that cannot be used. Says what to do."""


@inputs.readable_paths()
def check_output(source: str, output: Path, overwrite: bool, resume: bool) -> None:
    """Refuses a folder that is none, has files that nobody allowed to replace, or holds the images.

    Raises:
      PredictError, PhotoError: says why, and what to do.
    """
    if overwrite and resume:
        raise PredictError("--overwrite does again what --resume leaves out: give one of them")
    inputs.check_apart(source, output)  # first, as other advice does not help then
    if output.exists() and not output.is_dir():
        raise PredictError(f"--output={output} is a file: choose a folder")
    if not (overwrite or resume) and output.is_dir() and any(output.iterdir()):
        raise PredictError(
            f"--output={output} is not empty: choose another folder, --overwrite to replace files "
            "of the same name in it, or --resume to go on with what was stopped"
        )
    if resume:
        _check_reports(output)
    warn_if_inside(source, output)


def warn_if_inside(source: str, output: Path) -> None:
    """Warns of results below the images: they would be taken for images later."""
    folder = Path(source).expanduser()
    if folder.is_dir() and inputs.real(folder) in inputs.real(output).parents:
        print(
            f"warning: {output} lies inside the input folder: a later run over the folder with "
            "another --output would take its pictures for images",
            file=sys.stderr,
        )


def warn_of(found: inputs.Photos) -> None:
    """Names the files that are not among the photos."""
    if found.skipped:
        print(f"warning: {counted(len(found.skipped), 'file')} skipped", file=sys.stderr)
        for path, reason in found.skipped.items():
            print(f"  {path}: {reason}", file=sys.stderr)


def _check_reports(output: Path) -> None:
    """Refuses files of somebody else where the ranking and the page go."""
    ours = {RANKING: lambda path: is_ranking(path, COLUMNS), PAGE: is_page}
    for name, is_ours in ours.items():
        path = output / name
        if os.path.lexists(path) and not (path.is_file() and is_ours(path)):
            raise PredictError(
                f"{path} is not by --mode=predict: choose another --output, move it, or "
                "--overwrite to replace it"
            )


@inputs.readable_paths()
def check_place(output: Path) -> None:
    """Refuses a folder that cannot be made. Comes before opening the network, which takes long.

    Raises:
      PredictError, PhotoError: says why, and what to do.
    """
    there = next(path for path in (output, *output.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "may not be written" if there.is_dir() else "is a file"
        raise PredictError(f"--output={output}: {there} {reason}; choose another folder")


def leave_out_written(
    found: inputs.Photos, output: Path, probabilities: bool, model: str
) -> list[tuple[Photo, str]]:
    """Removes from `found` the photos whose results are complete; returns these and their names."""
    names = [_done_as(photo, output, probabilities, model) for photo in found.photos]
    done = [(photo, name) for photo, name in zip(found.photos, names) if name]
    say(f"{len(done)} of {counted(len(found.photos), 'image')} already in {output}")
    found.photos = [photo for photo, name in zip(found.photos, names) if not name]
    return done


def _done_as(photo: Photo, output: Path, probabilities: bool, model: str) -> str:
    """Returns the name under which a photo's results are complete, of its two; "" if they are not.

    A photo's name depends on the other photos (see `Photo`), and these may have changed since its
    results were written.

    Raises:
      PredictError: results of this name are of another photo, or by another network.
    """
    for name in (photo.name, photo.other_name):
        written = origin_of(output, name)
        if not _is_of(photo, name, written.image, list_path(output, name)):
            continue
        if written.model not in ("", model):  # even if they lack something: one network for all
            raise PredictError(
                f"{list_path(output, name)} is by {written.model}, and --resume would go on with "
                f"{model}: give the one it began with (of a run, --step and --network), choose "
                "another --output, or --overwrite to begin anew"
            )
        if is_written(output, name, probabilities):
            return name
    return ""


def _is_of(photo: Photo, name: str, image: str, path: Path) -> bool:
    """Whether the list at `path` is the photo's, by the image that it names; "" in old ones."""
    if image and _is_same_file(image, photo):
        return True
    if image and name == photo.name:
        raise PredictError(
            f"{path} is of {image}, and not of {photo.path}, which has the same name here: choose "
            "another --output, or --overwrite to replace it"
        )
    return not image and name == photo.name


def _is_same_file(path: str, photo: Photo) -> bool:
    return os.path.abspath(path) == os.path.abspath(photo.path)
