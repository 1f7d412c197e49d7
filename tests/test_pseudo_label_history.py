"""rc2l_jax/training/pseudo_label_history.py, and `first_unlabeled` of train_batches.py.

The picture shows the same images in one column for each evaluation, also after a resume.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny
from test_data import folder_config, write_folder

from data.errors import DataError
from rc2l_jax.input_pipeline import train_batches
from rc2l_jax.input_pipeline.subsets import open_subsets
from rc2l_jax.method.state import create_train_state
from rc2l_jax.reports import examples
from rc2l_jax.structs import VOID
from rc2l_jax.training import pseudo_label_history
from rc2l_jax.training.devices import replicate
from rc2l_jax.training.pseudo_label_history import open_history


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A tiny network on a folder of five images, three of them unlabelled."""
    folder = tmp_path_factory.mktemp("data")
    result = folder_config(write_folder(folder / "files"), folder / "prepared")
    result.update(tiny.config().copy_and_resolve_references(), num_pictures=8)
    result.data.update(
        folder_config(folder / "files", folder / "prepared", diagnostic_labels=True).data
    )
    result.pseudo.update(source="semantic", pixel_threshold=0.0)
    return result


@pytest.fixture(scope="module")
def trained(config):
    """The model, and states of steps 10, 20 and 30, whose teachers differ."""
    model, _, state = create_train_state(config)
    states = []
    for seed, step in enumerate((10, 20, 30)):
        rng = np.random.default_rng(seed)

        def noise(x, rng=rng):
            return np.asarray(x + rng.normal(0, 0.5, x.shape), x.dtype)

        teacher = jax.tree.map(noise, state.teacher_params)
        states.append(replicate(state.replace(teacher_params=teacher, step=np.int32(step))))
    return model, states


def test_the_images_are_the_first_of_training_whatever_the_batch_size(config):
    image, label, valid = train_batches.first_unlabeled(config, open_subsets(config), 8)
    assert len(image) == 3, "there are no more unlabelled images"
    changed = config.copy_and_resolve_references()
    changed.unlabeled_batch_size = 3
    batch = next(train_batches.train_batches(changed, open_subsets(changed), 0, 1).batches)
    np.testing.assert_array_equal(image, batch.unlabeled_image[0])
    np.testing.assert_array_equal(label, batch.unlabeled_label[0])
    np.testing.assert_array_equal(valid, batch.unlabeled_valid[0])
    assert (label != VOID).any()
    two = train_batches.first_unlabeled(config, open_subsets(config), 2)[0]
    np.testing.assert_array_equal(two, image[:2])


@pytest.mark.slow
def test_a_resumed_run_shows_what_an_undisturbed_one_does(config, trained, tmp_path):
    model, states = trained
    whole = open_history(tmp_path / "whole", model, config, open_subsets(config), 0)
    pictures = [whole.picture(state) for state in states]
    assert pictures[0].shape[1] < pictures[1].shape[1] < pictures[2].shape[1]
    kept = pseudo_label_history.read_labels(tmp_path / "whole")
    assert list(kept) == [10, 20, 30]
    columns = [np.stack([*labels.values()]) for labels in kept.values()]
    assert columns[0].shape == (3, 8, 8) and (columns[0] != columns[2]).any()

    # Killed after step 30 with a newest checkpoint of step 10: later columns must be made again.
    again = tmp_path / "again"
    first = open_history(again, model, config, open_subsets(config), 0)
    for state in states:
        first.picture(state.replace(teacher_params=states[0].teacher_params))
    resumed = open_history(again, model, config, open_subsets(config), 10)
    assert list(pseudo_label_history.read_labels(again)) == [10]
    np.testing.assert_array_equal(resumed.picture(states[1]), pictures[1])
    np.testing.assert_array_equal(resumed.picture(states[2]), pictures[2])

    # With fewer images than before, their rows stay as they were and the others are left out.
    fewer = config.copy_and_resolve_references()
    fewer.num_pictures = 1
    image, truth, _ = train_batches.first_unlabeled(config, open_subsets(config), 1)
    labels = {step: column[:1] for step, column in zip(kept, columns)}
    names = open_subsets(config).dataset.class_names
    expected = examples.pseudo_label_picture(image, truth, labels, names)
    found = open_history(again, model, fewer, open_subsets(fewer), 30).picture(states[2])
    np.testing.assert_array_equal(found, expected)

    # Labels of images that the picture does not show add nothing.
    pseudo_label_history.write_labels(again, 40, {"of another data set": columns[0][0]})
    picture = resumed.picture(states[2])
    np.testing.assert_array_equal(picture[20:276, :-4], pictures[2][20:276, :-4])


def test_images_that_cannot_be_read_cost_the_picture_only(config, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise DataError("photo 7 is broken")

    monkeypatch.setattr(train_batches, "first_unlabeled", broken)
    shown = pseudo_label_history.PseudoLabelHistory(tmp_path, None, config, None, 0)
    assert shown.picture(None) is None
    assert "no picture of pseudo labels: photo 7 is broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value"), [("unsup_weight", 0.0), ("num_pictures", 0), ("process", 1)]
)
def test_no_picture_where_there_is_nothing_to_show(config, tmp_path, monkeypatch, key, value):
    changed = config.copy_and_resolve_references()
    assert open_history(tmp_path, None, changed, open_subsets(changed), 0) is not None
    if key == "process":
        monkeypatch.setattr(jax, "process_index", lambda: value)
    else:
        changed[key] = value
    assert open_history(tmp_path, None, changed, open_subsets(changed), 0) is None


def test_columns_are_thinned_evenly():
    steps = list(range(100, 2500, 100))  # as many as the paper's runs have
    shown = pseudo_label_history.thinned(steps)
    assert len(shown) == 8 and shown[0] == 100 and shown[-1] == 2400
    gaps = np.diff(shown)
    assert gaps.min() >= 300 and gaps.max() <= 400
    assert pseudo_label_history.thinned([5, 7]) == [5, 7]
    assert pseudo_label_history.thinned([]) == []
