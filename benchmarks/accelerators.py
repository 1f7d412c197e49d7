"""What benchmarks/plan.py compiles for: what is known of a device, and JAX's form of it."""

from __future__ import annotations

import importlib.util
import os
import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
GPUS = FOLDER / "gpus"
GIB, GB = 2**30, 10**9
INSTALL = "pip install -r requirements-plan.txt"


class PlanError(Exception):
    """The plan cannot be made; the message is one line that says why and what to do."""


class Accelerator(NamedTuple):
    """One kind of device.

    Attributes:
      name: as on the command line.
      platform: "tpu" or "cuda".
      shape: a TPU's topology, such as "v5e:2x2"; for GPUs how many of them.
      memory: bytes of a device.
      bandwidth: bytes a second.
      tflops: peak rates by dtype; empty if not known.
      description: text of a GPU's file; "" for a TPU.
      chip_config: how a TPU's chips become devices.
    """

    name: str
    platform: str
    shape: str
    memory: int
    bandwidth: float
    tflops: dict[str, float]
    description: str
    chip_config: str = "default"


def find_accelerator(topology: str) -> Accelerator:
    """Reads what is known of a device.

    Args:
      topology: such as "v5e:2x2", "h100", "a100_40:4" or "my_gpu.txtpb".

    Raises:
      PlanError: it is unknown, or its file cannot be read.
    """
    known = tomllib.loads((FOLDER / "accelerators.toml").read_text())
    kind, _, shape = topology.partition(":")
    own = Path(kind)
    file = own if own.suffix == ".txtpb" else GPUS / f"{kind}.txtpb"
    if kind in known and "memory_gib" in known[kind]:
        rates = known[kind]
        if not shape:
            raise PlanError(f"{topology} has no shape: write {rates['example']}, for instance")
        memory, bandwidth = int(rates["memory_gib"] * GIB), rates["bandwidth_gb"] * GB
        chip_config = rates.get("chip_config", "default")
        return Accelerator(
            kind, "tpu", topology, memory, bandwidth, rates["tflops"], "", chip_config
        )
    if not file.is_file():
        examples = ", ".join(device["example"] for device in known.values())
        raise PlanError(f"topology {topology!r} is unknown; known are {examples}")
    if not re.fullmatch(r"[1-9]\d*", shape or "1"):
        raise PlanError(
            f"{topology!r}: behind the colon stands the number of GPUs, such as {kind}:4"
        )
    text = "\n".join(x for x in file.read_text().splitlines() if not x.startswith("#"))
    fields = [
        re.search(rf"\b{name}: (\d+)", text) for name in ("device_memory_size", "memory_bandwidth")
    ]
    if None in fields:
        raise PlanError(
            f"{file} does not describe a GPU: it lacks device_memory_size or memory_bandwidth"
        )
    memory, bandwidth = (int(field.group(1)) for field in fields)
    tflops = known.get(kind, {}).get("tflops", {})
    return Accelerator(kind, "cuda", shape or "1", memory, bandwidth, tflops, text)


def prepare(accelerator: Accelerator) -> None:
    """Sets what must be set before JAX is imported.

    Raises:
      PlanError: packages are missing or do not fit together.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    needed = {"tpu": ("libtpu",), "cuda": ("jax_cuda12_plugin", "jax_plugins.xla_cuda12")}
    for module in needed[accelerator.platform]:
        if not found(module):
            raise PlanError(f"package {module.split('.')[0]} is missing: {INSTALL}")
    if accelerator.platform == "tpu":
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no TPU is there to be locked
        return
    versions = {name: metadata.version(name) for name in ("jax", "jax-cuda12-plugin")}
    if len(set(versions.values())) > 1:
        ours, plugin = versions["jax"], versions["jax-cuda12-plugin"]
        raise PlanError(
            f"jax-cuda12-plugin {plugin} is not of JAX's version: "
            f"pip install jax-cuda12-plugin=={ours} jax-cuda12-pjrt=={ours}"
        )
    spec = importlib.util.find_spec("nvidia.cuda_nvcc") if found("nvidia") else None
    if spec is None:
        raise PlanError(f"package nvidia-cuda-nvcc-cu12 is missing: {INSTALL}")
    flags = (
        f"--xla_gpu_cuda_data_dir={next(iter(spec.submodule_search_locations))}",
        "--xla_gpu_enable_triton_gemm=false",  # needs a GPU to choose a kernel
    )
    os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *flags))


def found(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


def find_devices(accelerator: Accelerator) -> list[Any]:
    """The devices to compile for.

    Raises:
      PlanError: the compiler does not know such devices.
    """
    from jax.experimental import topologies

    try:
        if accelerator.platform == "tpu":
            description = topologies.get_topology_desc(
                platform="tpu",
                topology_name=accelerator.shape,
                chip_config_name=accelerator.chip_config,
            )
        else:
            description = topologies.get_topology_desc(
                platform="cuda",
                topology_name=accelerator.name,
                target_config=accelerator.description,
                topology=f"1x1x{accelerator.shape}",
            )
    except Exception as error:
        reason = str(error).splitlines()[0]
        if accelerator.platform == "cuda":
            raise PlanError(
                f"the description of {accelerator.name} cannot be used: {reason}"
            ) from None
        raise PlanError(f"the compiler knows no {accelerator.shape}: {reason}") from None
    return description.devices
