"""Files of torch are read as torch reads them, without torch, and nothing in them is run."""

from __future__ import annotations

import collections
import functools
import io
import math
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rc2l_jax.weights import WeightsError
from rc2l_jax.weights.files import read_arrays

ROOT = Path(__file__).parents[1]
FORMATS = {
    "zip": {},
    "zip_protocol_4": {"pickle_protocol": 4},
    "zip_protocol_5": {"pickle_protocol": 5},
    "legacy": {"_use_new_zipfile_serialization": False},
    "legacy_protocol_4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}
every_format = pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def view(rebuild: str, *arguments: Any) -> Call:
    """Pickled as a tensor, which torch itself might refuse to make."""
    return Call(getattr(torch._utils, rebuild), *arguments)


def storage(numbers: int) -> torch.storage.TypedStorage:
    return torch.arange(numbers, dtype=torch.float32)._typed_storage()


def assert_reads_as_torch(path: Path) -> None:
    """Compares with torch: floats with axes and numbers by value, the rest is left out."""
    want = torch.load(path, weights_only=False)  # True knows no protocol 4, and the files are ours
    while "state_dict" in want or "model" in want:
        want = want.get("state_dict", want.get("model"))
    want = {k: v.detach() for k, v in want.items() if v.ndim and v.numel()}
    got = read_arrays(path)
    assert got.keys() == want.keys() and want
    for name, tensor in want.items():
        assert got[name].dtype == np.float32 and got[name].flags.c_contiguous
        np.testing.assert_array_equal(got[name], tensor.float().numpy(), err_msg=name)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    base = random(12, 10, 3)
    images = random(2, 3, 4, 5)
    return {
        "float32": random(4, 5),
        "float16": random(3, 4).half(),
        "bfloat16": random(7).bfloat16(),
        "float64": random(2, 3, 4).double(),
        "whole": base,
        "rows": base[3:9:2],
        "inner": base[1:, 2:5, 1],
        "permuted": base.permute(2, 0, 1),
        "transposed_half": base[0].half().t(),
        "flat_view": base.view(-1)[17:40],
        "channels_last": images.to(memory_format=torch.channels_last),
        "repeated": random(1, 3).expand(4, 3),
        "parameter": torch.nn.Parameter(random(3)),
        "many_axes": random(1, 2, 1, 2, 1, 2, 1),
        "zero_dim": torch.tensor(3.5),
        "counter": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "empty_view": base[5:5],
    }


@every_format
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_tensors_of_every_kind_have_torchs_values(tmp_path, options, wrapper):
    content = tensors() if wrapper is None else {"epoch": 3, wrapper: tensors()}
    torch.save(content, tmp_path / "file.pth", **options)
    assert_reads_as_torch(tmp_path / "file.pth")


@every_format
def test_a_state_dict_with_its_metadata_beside_an_optimizer_and_a_scheduler(tmp_path, options):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])  # has a Counter
    state = network.state_dict()
    assert state._metadata
    content = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "best": np.float64(0.5),
        "size": torch.Size([3, 4]),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "names": ["a", ("b", {"c"}, frozenset({1}), None, True, 1e9, 2**70, b"bytes")],
        "longer": torch.arange(3, dtype=torch.int64).to(torch.uint16),  # has no storage class
    }
    torch.save(content, tmp_path / "file.pt", **options)
    got = read_arrays(tmp_path / "file.pt")
    assert got.keys() == {k for k, v in state.items() if v.ndim}
    for name, array in got.items():
        np.testing.assert_array_equal(array, state[name].numpy())


def test_parameters_and_tensors_of_the_first_versions(tmp_path):
    content = {
        "old": view("_rebuild_tensor", storage(20), 3, (2, 4), (8, 1)),
        "parameter": view("_rebuild_parameter", torch.ones(3), True, collections.OrderedDict()),
    }
    torch.save(content, tmp_path / "file.bin")
    got = read_arrays(tmp_path / "file.bin")
    np.testing.assert_array_equal(got["old"], np.arange(20.0)[3:][[[0, 1, 2, 3], [8, 9, 10, 11]]])
    np.testing.assert_array_equal(got["parameter"], np.ones(3))


def legacy_file(path: Path, numbers: np.ndarray, identities: list[tuple], views: list[tuple]):
    """A file as torch wrote before 1.6; `views` has offset, shape and strides of each tensor."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: Any) -> Any:
            return identities[thing.value] if isinstance(thing, Marker) else None

    class Marker:
        def __init__(self, value: int):
            self.value = value

    none = collections.OrderedDict()
    content = {
        f"tensor{i}": view("_rebuild_tensor_v2", Marker(i), *where, False, none)
        for i, where in enumerate(views)
    }
    with path.open("wb") as file:
        for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "type_sizes": {}}):
            pickle.dump(header, file, protocol=2)
        Pickler(file, protocol=2).dump(content)
        pickle.dump(["11"], file, protocol=2)
        file.write(struct.pack("<q", numbers.size) + numbers.tobytes())


def identity(numbers: int, of_view: tuple | None) -> tuple:
    return "storage", torch.FloatStorage, "11", "cpu", numbers, of_view


def test_views_of_storages_as_the_oldest_files_have_them(tmp_path):
    numbers = np.arange(30, dtype=np.float32)
    identities = [identity(30, None), identity(30, ("v", 10, 15))]
    views = [(0, (30,), (1,)), (3, (3, 4), (4, 1))]
    legacy_file(tmp_path / "file.pth", numbers, identities, views)
    assert_reads_as_torch(tmp_path / "file.pth")
    got = read_arrays(tmp_path / "file.pth")
    np.testing.assert_array_equal(got["tensor1"], numbers[13:25].reshape(3, 4))
    for of_view in (("v", 20, 11), ("v", -1, 5), ("v", 0, -5), ("v", 2**62, 2**62), ("v",)):
        legacy_file(tmp_path / "file.pth", numbers, [identity(30, of_view)], [(0, (5,), (1,))])
        with pytest.raises(WeightsError, match=r"file\.pth: not a readable torch file"):
            read_arrays(tmp_path / "file.pth")
    legacy_file(tmp_path / "file.pth", numbers, [identity(31, None)], [(0, (5,), (1,))])
    with pytest.raises(WeightsError, match=r"storage 11 has 30 numbers, not 31"):
        read_arrays(tmp_path / "file.pth")


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None], **options: Any) -> None:
    """Writes an archive again, with entries changed, or left out where `change` gives None."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries.items():
            if (changed := change(name, data)) is not None:
                archive.writestr(name, changed)


def test_numbers_of_a_big_endian_machine(tmp_path):
    path = tmp_path / "file.pth"
    content = {k: v for k, v in tensors().items() if v.dtype == torch.float32}
    torch.save(content, path)
    before = read_arrays(path)

    def big(name: str, data: bytes) -> bytes:
        if "/data/" in name:
            return np.frombuffer(data, "<f4").astype(">f4").tobytes()
        return b"big" if name.endswith("/byteorder") else data

    rewrite(path, big)
    assert_reads_as_torch(path)
    np.testing.assert_array_equal(read_arrays(path)["rows"], before["rows"])


def test_archives_without_checksums_and_those_before_byteorder(tmp_path):
    path, old = tmp_path / "file.pth", torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tensors(), path)
    finally:
        torch.serialization.set_crc32_options(old)
    assert_reads_as_torch(path)
    torch.save(tensors(), path)
    rewrite(path, lambda name, data: None if name.endswith("byteorder") else data)
    assert_reads_as_torch(path)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (21,), (1,)),
        (1, (20,), (1,)),
        (0, (2, 10), (11, 1)),
        (0, (3,), (10,)),
        (-1, (3,), (1,)),
        (5, (3,), (-1,)),
        (0, (-3,), (1,)),
        (0, (2**62, 8), (1, 1)),
        (2**63, (3,), (1,)),
        (2**64, (3,), (1,)),
        (0, (3,), (2**62,)),
        (0, (3, 2), (1,)),
        (0, (1,) * 65, (1,) * 65),
        (0, (2.0, 3), (1, 1)),
        (0, "ab", "cd"),
        (None, (3,), (1,)),
    ],
)
@pytest.mark.parametrize("options", [FORMATS["zip"], FORMATS["legacy"]], ids=["zip", "legacy"])
def test_a_view_beyond_its_storage_is_refused(tmp_path, options, offset, shape, strides):
    none = collections.OrderedDict()
    bad = view("_rebuild_tensor_v2", storage(20), offset, shape, strides, False, none)
    torch.save({"good": torch.ones(3), "bad": bad}, tmp_path / "file.pth", **options)
    with pytest.raises(WeightsError, match=r"file\.pth: .* \(a tensor (of|whose|without)"):
        read_arrays(tmp_path / "file.pth")


def test_a_small_file_cannot_ask_for_much_memory(tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"a": torch.ones(1).expand(2**20, 2**20)}, path)
    with pytest.raises(WeightsError, match="repeat the same numbers too often"):
        read_arrays(path)
    large = torch.ones(2**18)  # 1 MiB
    torch.save({f"a{i}": large[i:] for i in range(100)}, path)
    with pytest.raises(WeightsError, match="repeat the same numbers too often"):
        read_arrays(path)
    torch.save({f"a{i}": large for i in range(4)}, path)
    assert len(read_arrays(path)) == 4
    assert path.stat().st_size < 2**21


# Code in files.


def archive(path: Path, program: bytes, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program)
        for name, data in more.items():
            file.writestr(f"archive/{name}", data)
    return path


def call(module: str, name: str, argument: bytes) -> dict[str, bytes]:
    """Programs that call a function, by each operation that can."""
    text = b"X" + struct.pack("<I", len(argument)) + argument
    named = f"c{module}\n{name}\n".encode()
    by_stack = b"".join(b"\x8c" + bytes([len(x)]) + x.encode() for x in (module, name)) + b"\x93"
    return {
        "reduce": b"\x80\x02" + named + text + b"\x85R.",
        "stack_global": b"\x80\x04" + by_stack + text + b"\x85R.",
        "newobj": b"\x80\x02" + named + text + b"\x85\x81.",
        "newobj_ex": b"\x80\x04" + named + text + b"\x85}\x92.",
        "obj": b"\x80\x02(" + named + text + b"o.",
        "inst": b"\x80\x02(" + text + f"i{module}\n{name}\n".encode() + b".",
        "build": b"\x80\x02" + named + b"}" + text + text + b"sb.",
    }


CALLS = {
    "os.system": ("os", "system"),
    "posix.system": ("posix", "system"),
    "builtins.eval": ("builtins", "eval"),
    "builtins.exec": ("__builtin__", "exec"),
    "builtins.getattr": ("builtins", "getattr"),
    "functools.partial": ("functools", "partial"),
    "torch.load": ("torch", "load"),
    "torch.serialization.load": ("torch.serialization", "load"),
    "torch.storage._load_from_bytes": ("torch.storage", "_load_from_bytes"),
    "torch._utils._rebuild_tensor_v2.__globals__": (
        "torch._utils",
        "_rebuild_tensor_v2.__globals__",
    ),
    "dill._dill._create_function": ("dill._dill", "_create_function"),
    "numpy.load": ("numpy", "load"),
    "rc2l_jax.weights.unpickle.Maker": ("rc2l_jax.weights.unpickle", "Maker"),
    "copyreg._reconstructor": ("copyreg", "_reconstructor"),
    "__main__.Network": ("__main__", "Network"),
}


@pytest.mark.parametrize("name", CALLS)
def test_code_is_refused_by_name_and_does_not_run(tmp_path, name):
    marker = tmp_path / "marker"
    argument = f"touch {marker}" if "system" in name else f"open({str(marker)!r}, 'w').close()"
    for how, program in call(*CALLS[name], argument.encode()).items():
        for path in (archive(tmp_path / f"{how}.pth", program), tmp_path / f"{how}.pt"):
            if path.suffix == ".pt":  # as the first pickle of a legacy file
                path.write_bytes(program)
            with pytest.raises(WeightsError) as caught:
                read_arrays(path)
            message = str(caught.value)
            assert f"{path.name}: " in message and f"it wants to use {name}" in message, how
            assert "\n" not in message and "nothing of it was run" in message
    assert not marker.exists()


def test_these_programs_do_run_elsewhere(tmp_path):
    """So that the test above can fail."""
    marker = tmp_path / "marker"
    for how in ("reduce", "stack_global", "inst"):
        pickle.loads(call("os", "system", f"touch {marker}".encode())[how])
        marker.unlink()


def test_code_that_torch_itself_saved(tmp_path):
    marker = tmp_path / "marker"
    for function in (os.system, functools.partial(os.system), eval):
        for options in FORMATS.values():
            content = {"a": torch.ones(3), "b": Call(function, f"touch {marker}")}
            torch.save(content, tmp_path / "file.pth", **options)
            with pytest.raises(WeightsError, match=r"it wants to use \w+\.\w+\. .*state_dict"):
                read_arrays(tmp_path / "file.pth")
    assert not marker.exists()


@every_format
def test_a_whole_network_is_refused_and_the_state_dict_asked_for(tmp_path, options):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "file.pth", **options)
    with pytest.raises(
        WeightsError, match=r"(torch\.nn\.modules\.linear\.Linear|whole network).*state_dict\(\)"
    ):
        read_arrays(tmp_path / "file.pth")


def test_a_torchscript_program_a_tar_archive_and_other_archives_are_named(tmp_path):
    path = tmp_path / "file.pt"
    archive(path, b"\x80\x02}.", **{"constants.pkl": b"\x80\x02).", "code/a.py": b"..."})
    with pytest.raises(WeightsError, match="it is a TorchScript program"):
        read_arrays(path)
    with tarfile.open(path, "w") as file:
        for name in ("storages", "tensors", "pickle"):
            file.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(WeightsError, match=r"a tar archive of torch 0\.1"):
        read_arrays(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", b"a")
    with pytest.raises(WeightsError, match=r"a zip archive without data\.pkl"):
        read_arrays(path)
    for data in (b"", b"<html>", pickle.dumps({})):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=r"file\.pt: not a readable torch file"):
            read_arrays(path)


def test_a_name_with_control_characters_stays_in_one_line(tmp_path):
    path = archive(tmp_path / "file.pth", b"\x80\x04\x8c\x05a\n\x1b[m\x8c\x01b\x93.")
    with pytest.raises(WeightsError, match=r"it wants to use 'a\\n\\x1b\[m\.b'\."):
        read_arrays(path)


def test_negated_views_and_sparse_tensors_are_refused(tmp_path):
    negated = torch.ones(3, dtype=torch.complex64).conj().imag
    assert negated.is_neg()
    for tensor, reason in ((negated, "yet to be negated"), (torch.eye(2).to_sparse(), "sparse")):
        torch.save({"a": tensor}, tmp_path / "file.pth")
        with pytest.raises(WeightsError, match=reason):
            read_arrays(tmp_path / "file.pth")


HUGE = b"\xff\xff\xff\xff"
HOSTILE = {
    "a place in the memo that wants 64 GiB": b"\x80\x02}r" + HUGE + b".",
    "bytes of 8 EiB": b"\x80\x04\x8e" + HUGE + b"\xff\xff\xff\x7f.",
    "a bytearray of 1 TiB": b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00.",
    "a frame of 8 EiB": b"\x80\x04\x95" + HUGE + b"\xff\xff\xff\x7f}.",
    "a string of 4 GiB": b"\x80\x02X" + HUGE + b"a.",
    "a deep tuple as a key": b"\x80\x02})" + b"\x85" * 3 * 10**5 + b"Ks.",
    "a deep tuple as a name": b"\x80\x02}(K\x01" + b")" + b"\x85" * 3 * 10**5 + b"K\x01u.",
    "an extension": b"\x80\x02\x82\x01.",
    "too many takes": b"\x80\x02}\x87.",
    "a mark that is not there": b"\x80\x02t.",
    "no end": b"\x80\x02}",
    "nothing": b"\x80\x02.",
    "a buffer from outside": b"\x80\x05\x97.",
    "a number of a million digits": b"L" + b"9" * 10**6 + b"L\n.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_pickles_are_refused_at_once(tmp_path, what):
    start = time.perf_counter()
    path = archive(tmp_path / "file.pth", HOSTILE[what])
    with pytest.raises(WeightsError, match=r"file\.pth: "):
        read_arrays(path)
    (tmp_path / "file.pkl").write_bytes(HOSTILE[what])
    with pytest.raises(WeightsError, match=r"file\.pkl: "):
        read_arrays(tmp_path / "file.pkl")
    assert time.perf_counter() - start < 10


def test_copies_of_a_dictionary_are_counted(tmp_path):
    """70 kB that would make a list of 3000 dictionaries with 10000 keys each."""
    entries = b"".join(b"M" + struct.pack("<H", i) + b"K\x02" for i in range(10**4))
    copy = b"h\x00h\x01\x85R"
    program = b"\x80\x02ccollections\nOrderedDict\nq\x00((" + entries + b"dq\x01" + copy * 3000
    path = archive(tmp_path / "file.pth", program + b"l.")
    with pytest.raises(WeightsError, match="copies the same objects too often"):
        read_arrays(path)


def test_lists_within_lists_cost_no_more_than_their_bytes(tmp_path):
    program = b"\x80\x02}X\x01\x00\x00\x00aK\x01s]q\x00"  # each list holds the one before it twice
    for index in range(1, 100):
        program += b"](h" + bytes([index - 1]) + b"h" + bytes([index - 1]) + b"eq" + bytes([index])
    path = archive(tmp_path / "file.pth", program + b"0" * 100 + b".")
    with pytest.raises(WeightsError, match="holds no weights by name but a"):
        read_arrays(path)


# Damage.


@pytest.fixture(scope="module")
def small_files() -> dict[str, bytes]:
    """Small files in several formats."""
    content = collections.OrderedDict(
        a=torch.arange(6.0).reshape(2, 3), b=torch.ones(2).half(), c=torch.zeros(5)[1:4]
    )
    files = {}
    for name, options in FORMATS.items():
        buffer = io.BytesIO()
        torch.save(content, buffer, **options)
        files[name] = buffer.getvalue()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, buffer := io.BytesIO())
    finally:
        torch.serialization.set_crc32_options(True)
    files["zip_without_checksums"] = buffer.getvalue()
    return files


@pytest.mark.parametrize("name", ["zip", "zip_without_checksums", "legacy", "legacy_protocol_4"])
def test_a_file_that_is_cut_anywhere_is_an_error(tmp_path, small_files, name):
    data, path = small_files[name], tmp_path / "file.pth"
    path.write_bytes(data)
    assert len(read_arrays(path)) == 3
    for length in range(0, len(data), max(1, len(data) // 150)):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match=r"^.*file\.pth: not a readable torch file[^\n]*$"):
            read_arrays(path)
    path.write_bytes(data[:-1])
    with pytest.raises(WeightsError):
        read_arrays(path)


@pytest.mark.parametrize("name", [*FORMATS, "zip_without_checksums"])
def test_changed_bytes_give_an_error_or_arrays(tmp_path, small_files, name):
    data, path = small_files[name], tmp_path / "file.pth"
    path.write_bytes(data)
    want = read_arrays(path)
    # Most of an archive is padding, so half of the changes are in the pickle.
    first = data.index(b"\x80" + bytes([FORMATS.get(name, {}).get("pickle_protocol", 2)]))
    in_pickle = st.tuples(st.integers(first, first + 400), st.integers(0, 255))
    anywhere = st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255))

    @settings(
        max_examples=300,
        deadline=2000,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(in_pickle | anywhere, min_size=1, max_size=3))
    def check(changes):
        changed = bytearray(data)
        for position, value in changes:
            changed[position] = value
        path.write_bytes(changed)
        try:
            got = read_arrays(path)
        except WeightsError as error:
            assert str(path) in str(error)
            return
        assert all(array.dtype == np.float32 for array in got.values())
        if name in ("zip", "zip_protocol_4", "zip_protocol_5"):  # with checksums
            assert got.keys() == want.keys()
            for key, array in got.items():
                np.testing.assert_array_equal(array, want[key])

    check()


def test_entries_that_are_compressed_missing_or_of_another_size_are_refused(tmp_path):
    path = tmp_path / "file.pth"
    for change, options, reason in (
        (lambda name, data: data, {"compression": zipfile.ZIP_DEFLATED}, "compressed"),
        (lambda name, data: None if name.endswith("data/0") else data, {}, "data/0 is missing"),
        (lambda name, data: data[:-4] if "data/0" in name else data, {}, "76 bytes instead of 80"),
        (lambda name, data: data + data if "data/0" in name else data, {}, "160 bytes instead"),
        (lambda name, data: b"up" if "byteorder" in name else data, {}, "unknown order of bytes"),
    ):
        torch.save({"a": torch.arange(20.0)}, path)
        rewrite(path, change, **options)
        with pytest.raises(WeightsError, match=reason):
            read_arrays(path)


def test_a_changed_number_does_not_pass_the_checksum(tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"a": torch.arange(20.0)}, path)
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<f", 7.0), struct.pack("<f", 8.0)))
    with pytest.raises(WeightsError, match="checksum of data/0 is wrong"):
        read_arrays(path)


def test_torch_is_not_needed(tmp_path):
    for name, options in FORMATS.items():
        torch.save({"state_dict": tensors()}, tmp_path / f"{name}.pth", **options)
    program = """
import sys
sys.modules["torch"] = None
from pathlib import Path
from rc2l_jax.weights.files import read_arrays
for path in sorted(Path(sys.argv[1]).glob("*.pth")):
    print(path.stem, sum(a.size for a in read_arrays(path).values()))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    numbers = sum(math.prod(t.shape) for t in tensors().values() if t.ndim)
    assert shown.split("\n")[:-1] == [f"{name} {numbers}" for name in sorted(FORMATS)]
