"""Weights in several files with an index, local and of the hub; safetensors read array by array."""

from __future__ import annotations

import fnmatch
import json
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rc2l_jax.weights import WeightsError
from rc2l_jax.weights.files import find, read_arrays

KINDS = ("safetensors", "bin")


def content() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {f"a{i}.weight": torch.randn(3, i + 1, generator=generator) for i in range(5)}
    made |= {f"h{i}.weight": torch.randn(4, generator=generator).half() for i in range(3)}
    made |= {f"b{i}.weight": torch.randn(2, 2, generator=generator).bfloat16() for i in range(3)}
    return made | {"counter": torch.tensor(3), "double": torch.ones(3, dtype=torch.float64)}


def sharded(folder: Path, kind: str) -> Path:
    """Writes three shards, each with some of the tensors; returns their index."""
    stem = "model" if kind == "safetensors" else "pytorch_model"
    weight_map, everything = {}, content()
    for part in range(3):
        name = f"{stem}-0000{part + 1}-of-00003.{kind}"
        some = dict(list(everything.items())[part::3])
        weight_map |= dict.fromkeys(some, name)
        (save_file if kind == "safetensors" else torch.save)(some, folder / name)
    index = folder / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def assert_content(got: dict[str, np.ndarray]) -> None:
    want = {k: v for k, v in content().items() if v.ndim}
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], tensor.float().numpy(), err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_shards_are_read_as_one(tmp_path, kind):
    index = sharded(tmp_path, kind)
    assert_content(read_arrays(index))
    assert find(str(index)) == (index, {})
    (tmp_path / "config.json").write_text('{"model_type": "maskformer"}')
    assert find(str(tmp_path)) == (index, {"model_type": "maskformer"})
    whole = tmp_path / index.name.removesuffix(".index.json")  # is preferred, as in transformers
    (save_file if kind == "safetensors" else torch.save)(content(), whole)
    assert find(str(tmp_path))[0] == whole
    assert_content(read_arrays(whole))


def test_a_folder_without_weights_says_what_is_looked_for(tmp_path):
    with pytest.raises(WeightsError, match=r"neither model\.safetensors .* nor an index of their"):
        find(str(tmp_path))


class Hub:
    """Stands for the hub: one repository in a folder, of which it copies what is asked for."""

    def __init__(self, remote: Path, cache: Path):
        self.remote, self.cache, self.asked = remote, cache, []

    def snapshot_download(self, name: str, allow_patterns: list[str]) -> str:
        assert name == "someone/model"
        self.cache.mkdir(exist_ok=True)
        for file in self.remote.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                self.asked.append(file.name)
                shutil.copy(file, self.cache)
        return str(self.cache)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote" / "config.json").write_text('{"model_type": "maskformer"}')
    (tmp_path / "remote" / "training.log").write_text("of no use")
    hub = Hub(tmp_path / "remote", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    return hub


@pytest.mark.parametrize("kind", KINDS)
def test_the_hub_is_asked_for_the_index_and_then_for_its_shards(hub, kind):
    index = sharded(hub.remote, kind)
    (hub.remote / "model-00009-of-00009.bin").write_bytes(b"of another index")
    path, description = find("someone/model")
    assert path == hub.cache / index.name and description == {"model_type": "maskformer"}
    assert_content(read_arrays(path))
    shards = set(json.loads(index.read_text())["weight_map"].values())
    assert {*hub.asked} == {"config.json", index.name, *shards}


def test_of_the_hub_safetensors_come_before_torch_and_one_file_before_shards(hub):
    sharded(hub.remote, "bin")
    torch.save(content(), hub.remote / "pytorch_model.bin")
    assert find("someone/model")[0].name == "pytorch_model.bin"
    assert "pytorch_model-00001-of-00003.bin" not in hub.asked
    shutil.rmtree(hub.cache)
    hub.asked.clear()
    save_file(content(), hub.remote / "model.safetensors")
    assert find("someone/model")[0].name == "model.safetensors"
    assert {*hub.asked} == {"config.json", "model.safetensors"}


def test_an_index_of_the_hub_asks_for_no_pattern_and_names_what_is_not_there(hub):
    index = sharded(hub.remote, "safetensors")
    before = index.read_text()
    edit(index, lambda x: x.update({"double": "*.safetensors"}))
    with pytest.raises(WeightsError, match=r"puts double into '\*\.safetensors'"):
        find("someone/model")
    assert "model-00001-of-00003.safetensors" not in hub.asked
    index.write_text(before)
    (hub.remote / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        WeightsError, match=r"model-00002-of-00003\.safetensors: not in this folder"
    ):
        read_arrays(find("someone/model")[0])


def edit(index: Path, change: Callable[[dict], Any]) -> None:
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))


@pytest.mark.parametrize("kind", KINDS)
def test_shards_that_do_not_fit_their_index_are_named(tmp_path, kind):
    index = sharded(tmp_path, kind)
    stem, before = index.name.split(".")[0], index.read_text()
    last = f"{stem}-00003-of-00003.{kind}"
    edit(index, lambda x: x.update({"more.weight": last}))
    with pytest.raises(WeightsError, match=rf"{last}, which lacks 1 arrays: more\.weight"):
        read_arrays(index)
    index.write_text(before)
    edit(index, lambda x: x.pop("double"))
    with pytest.raises(WeightsError, match="which also has 1 arrays: double"):
        read_arrays(index)
    index.write_text(before)
    edit(index, lambda x: x.update({"double": last}))
    with pytest.raises(WeightsError, match=r"(lacks|also has) 1 arrays: double"):
        read_arrays(index)
    index.write_text(before)
    (tmp_path / last).unlink()
    with pytest.raises(WeightsError, match=rf"{index.name}: {last}: not in this folder"):
        read_arrays(index)


@pytest.mark.parametrize(
    "shard",
    [
        *("../x.bin", "/x.bin", "a/x.bin", "..\\x.bin", "C:\\x.bin", "*.bin", "..", "", ".x.bin"),
        *("~.pt", "x.bin\n", "x.index.json", "x.pkl", "x.txt", 3, None, ["x.bin"]),
    ],
)
def test_an_index_names_files_of_its_own_folder_only(tmp_path, shard):
    folder = tmp_path / "folder"
    folder.mkdir()
    index = sharded(folder, "bin")
    torch.save({"double": torch.ones(2)}, tmp_path / "x.bin")
    edit(index, lambda x: x.update({"double": shard}))
    with pytest.raises(WeightsError, match=r"index\.json: puts double into .* own folder only"):
        read_arrays(index)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {}}', "[" * 10**5, "\ud800"])
def test_an_index_that_is_none_is_named(tmp_path, text):
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(WeightsError, match=r"index\.json: (not JSON|no index of shards)"):
        read_arrays(index)


# safetensors.


def test_arrays_are_read_one_by_one(tmp_path):
    """The file, of 16 MiB in half precision, is never in memory beside its 32 MiB in float32."""
    tensors = {f"a{i}": torch.ones(2**19).half() for i in range(16)}
    save_file(tensors, tmp_path / "model.safetensors")
    torch.save(tensors, tmp_path / "model.pth")
    for name in ("model.safetensors", "model.pth"):
        tracemalloc.start()
        try:
            arrays = read_arrays(tmp_path / name)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert sum(x.nbytes for x in arrays.values()) == 2**25
        assert 2**25 <= peak < 2**25 + 2**22, name


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["a"].update(data_offsets=[0, 2**40]),
        lambda header: header["a"].update(data_offsets=[-4, 20]),
        lambda header: header["a"].update(shape=[2**40, 2**40]),
        lambda header: header["a"].update(shape=[7]),
        lambda header: header["b"].update(data_offsets=[0, 24]),
        lambda header: header["a"].update(dtype="F64"),
        lambda header: header["a"].update(dtype="object"),
        lambda header: header["a"].pop("shape"),
        lambda header: header.update(a=3),
        lambda header: header.pop("a"),
    ],
)
def test_headers_of_safetensors_that_do_not_fit_the_file_are_errors(tmp_path, change):
    header = {
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F32", "shape": [6], "data_offsets": [24, 48]},
    }
    path, data = tmp_path / "file.safetensors", np.arange(12, dtype="<f4").tobytes()

    def write() -> None:
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)

    write()
    np.testing.assert_array_equal(read_arrays(path)["a"], np.arange(6.0).reshape(2, 3))
    change(header)
    write()
    with pytest.raises(WeightsError, match=r"file\.safetensors: not a readable safetensors file"):
        read_arrays(path)


@pytest.mark.parametrize("length", [0, 7, 8, 9, 60, -1])
def test_safetensors_cut_anywhere_are_errors(tmp_path, length):
    path = tmp_path / "file.safetensors"
    save_file({"a": torch.arange(6.0)}, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(WeightsError, match=r"file\.safetensors: not a readable safetensors file"):
        read_arrays(path)
