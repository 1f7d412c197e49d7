"""benchmarks/plan.py and what it uses: what XLA plans for accelerators that are not there."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

import jax
import pytest
from faults.runs import ROOT

from benchmarks import plan
from benchmarks.accelerators import GPUS, PlanError, find_accelerator, found, prepare
from benchmarks.program import (
    Program,
    array_bytes,
    collectives,
    host_callbacks,
    kernels,
    library_flops,
    products,
    traffic_by_part,
)

# A program as XLA prints it: a loop of 3 rounds, a conditional, library calls, an exchange.
TEXT = """HloModule jit_step, is_scheduled=true

%fused (p: f32[8,4]) -> f32[8,4] {
  %p = f32[8,4]{1,0} parameter(0)
  ROOT %dot = bf16[8,4]{1,0} dot(%p, %p), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (f32[8,4])) -> (f32[8,4]) {
  %state = (f32[8,4]{1,0}) parameter(0)
  %x = f32[8,4]{1,0} get-tuple-element(%state), index=0
  %y = f32[8,4]{1,0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/mul"}
  ROOT %next = (f32[8,4]{1,0}) tuple(%y)
}

%small (a: f32[8,4]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  ROOT %b = f32[8,4]{1,0} copy(%a)
}

%large (a: f32[8,4]) -> f32[8,4] {
  %a.1 = f32[8,4]{1,0} parameter(0)
  %c = f32[8,4]{1,0} copy(%a.1)
  ROOT %d = f32[8,4]{1,0} copy(%c)
}

ENTRY %main (x: f32[8,4], w: f32[4,16]) -> f32[8,16] {
  %x.1 = f32[8,4]{1,0} parameter(0)
  %w = f32[4,16]{1,0} parameter(1)
  %start = (f32[8,4]{1,0}) tuple(%x.1)
  %loop = (f32[8,4]{1,0}) while(%start), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %z = f32[8,4]{1,0} get-tuple-element(%loop), index=0
  %sum = f32[8,4]{1,0} all-reduce(%z), replica_groups={{0,1}}, to_apply=%add
  %if = f32[8,4]{1,0} conditional(%p, %sum, %sum), branch_computations={%small, %large}
  %call = f32[1]{0} custom-call(%if), custom_call_target="xla_ffi_python_gpu_callback"
  %gemm = (f32[8,16]{1,0}, s8[64]{0}) custom-call(%if, %w), custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(step)/jvp(student_forward)/MaskFormer/backbone/dot"}, backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  ROOT %back = f32[8,16]{1,0} fusion(%gemm), kind=kLoop, calls=%small, metadata={op_name="jit(step)/transpose(jvp(student_forward))/MaskFormer/backbone/add"}
}
"""  # noqa: E501


def test_a_program_is_read():
    program = Program(TEXT)
    instructions = program.instructions()
    assert [(x.op, x.times) for x in instructions] == [
        ("fusion", 3),  # the loop's body
        ("all-reduce", 1),
        *[("copy", 1)] * 2,  # of the branch with the most traffic
        *[("custom-call", 1)] * 2,
        ("fusion", 1),
    ]
    image = 8 * 4 * 4  # bytes of f32[8,4]
    assert [x.traffic for x in instructions[:4]] == [2 * image] * 4
    gemm = instructions[5]
    assert gemm.traffic == image + 4 * 16 * 4 + 8 * 16 * 4 + 64
    assert kernels(instructions) == (2, 2)
    assert collectives(instructions) == {"all-reduce": (1, image)}
    assert host_callbacks(instructions) == 1
    assert products(program, instructions) == {"product bf16": 1, "product f32": 1}
    assert library_flops(instructions) == 2 * 8 * 16 * 4
    parts = traffic_by_part(instructions)
    assert parts["student_forward/backbone"] == (gemm.traffic, 1)
    # A tuple as an operand counts whole.
    assert parts["student_forward/backbone backward"] == (2 * 8 * 16 * 4 + 64, 1)
    assert sum(size for size, _ in parts.values()) == sum(x.traffic * x.times for x in instructions)


def test_a_tpus_own_memory_is_no_traffic():
    assert array_bytes("bf16[32,3]{1,0:T(8,128)(2,1)}") == 32 * 3 * 2
    assert array_bytes("(f32[10]{0:T(128)S(1)}, u8[5]{0})") == 5
    for here, there, sides in (("{0:S(1)}", "{0}", 1), ("{0}", "{0}", 2), ("{0}", "{0:S(1)}", 1)):
        text = f"""ENTRY %main (x: f32[100]) -> f32[10] {{
  %x = f32[100]{there} parameter(0)
  %s = ((f32[100]{there}), f32[10]{here}, s32[]) slice-start(%x), slice={{[0:10]}}
  %d = f32[10]{here} slice-done(%s)
}}"""
        assert [x.traffic for x in Program(text).instructions()] == [sides * 10 * 4]


def test_convolutions_have_the_same_operations_forward_and_backward():
    line = (
        "  %c = ({result}, u8[0]{{0}}) custom-call(%x, %y), window={{size=3x3 pad=1_1x1_1}}, "
        'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$conv{kind}"'
    )
    image, kernel, output = "bf16[2,8,8,16]{3,2,1,0}", "bf16[32,3,3,16]{3,2,1,0}", "bf16[2,8,8,32]"
    for kind, result, x, y in (
        ("BiasActivationForward", output, image, kernel),
        ("BackwardInput", image, output, kernel),
        ("BackwardFilter", kernel, image, output),
    ):
        text = "\n".join(
            [
                "ENTRY %main (x: f32[]) -> f32[] {",
                f"  %x = {x} parameter(0)",
                f"  %y = {y} parameter(1)",
                line.format(result=result, kind=kind),
                "}",
            ]
        )
        assert library_flops(Program(text).instructions()) == 2 * (2 * 8 * 8 * 32) * (3 * 3 * 16)


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        Program("nothing")


def test_the_part_names_are_those_of_the_step():
    """A step's instructions carry the scopes by which traffic is grouped."""
    import tiny

    from rc2l_jax.method.state import create_train_state
    from rc2l_jax.training.devices import parallel_train_step, replicate

    config = tiny.config(matcher="device", model__num_decoder_layers=1)
    model, optimizer, state = create_train_state(config)
    step = parallel_train_step(model, optimizer, config, jax.devices()[:1])
    text = step.lower(replicate(state, 1), tiny.batch(1)).compile().as_text()
    parts = traffic_by_part(Program(text).instructions())
    for part in (
        "weak_view",
        "teacher_segments/backbone",
        "strong_view",
        "student_forward/transformer backward",
        "match_all",
        "label_loss",
        "unlabel_loss",
        "updated_state",
    ):
        assert part in parts, sorted(parts)


@pytest.mark.parametrize(
    ("topology", "words"),
    [
        ("v9:2x2", r"topology 'v9:2x2' is unknown; known are .*v5e:2x2.*h100"),
        ("v5e", r"v5e has no shape: write v5e:2x2, for instance"),
        ("h100:2x2", r"behind the colon stands the number of GPUs, such as h100:4"),
    ],
)
def test_unknown_topologies_are_refused_in_one_line(topology, words):
    with pytest.raises(PlanError, match=words) as error:
        find_accelerator(topology)
    assert "\n" not in str(error.value)


def test_a_description_that_is_none_is_refused(tmp_path):
    file = tmp_path / "mine.txtpb"
    file.write_text("# my GPU\ngpu_device_info { core_count: 3 }\n")
    with pytest.raises(PlanError, match=f"{file} does not describe a GPU: it lacks"):
        find_accelerator(str(file))


def test_every_gpus_description_says_its_memory_and_bandwidth():
    for file in sorted(GPUS.glob("*.txtpb")):
        gpu = find_accelerator(file.stem)
        assert gpu.platform == "cuda" and gpu.tflops["float32"] > 10
        assert 15 * 2**30 < gpu.memory < 81 * 2**30
        assert 0.8e12 < gpu.bandwidth < 4e12
    assert find_accelerator(f"{file}:4").shape == "4"  # a file of one's own


def test_a_chip_of_two_cores_is_one_device():
    assert find_accelerator("v4:2x2x1").chip_config == "megacore"
    assert find_accelerator("v5e:2x2").chip_config == "default"


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (32, "batch_size = 8 leaves some of 32 devices without an image: it must be at least 32"),
        (3, "or one of 1, 2, 4, 8 devices"),
    ],
)
def test_batches_that_do_not_fit_are_refused_in_one_line(devices, words):
    arguments = argparse.Namespace(config=ROOT / "configs/shapes.py", set=[], evaluation=False)
    with pytest.raises(PlanError, match=words) as error:
        plan.read_config(arguments, find_accelerator("v5e:2x2"), devices)
    assert "\n" not in str(error.value)


def test_a_config_that_cannot_be_read_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty.py").write_text("")
    for name, words in (("none.py", "no such file"), ("empty.py", "has no get_config")):
        arguments = argparse.Namespace(config=tmp_path / name, set=[], evaluation=False)
        with pytest.raises(PlanError, match=rf"--config={tmp_path}/{name}: {words}") as error:
            plan.read_config(arguments, find_accelerator("v5e:2x2"), 4)
        assert "\n" not in str(error.value)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("benchmarks.accelerators.found", lambda module: False)
    for topology, package in (("v5e:2x2", "libtpu"), ("h100", "jax_cuda12_plugin")):
        with pytest.raises(PlanError, match=rf"{package} is missing: pip install -r require"):
            prepare(find_accelerator(topology))


def planned(topology: str, *more: str) -> str:
    """What the command prints for a small network."""
    settings = ("model.backbone=resnet10", "model.backbone_width=8", "model.num_decoder_layers=1")
    command = [sys.executable, "benchmarks/plan.py", "--config=configs/shapes.py"]
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = subprocess.run(
        [*command, f"--topology={topology}", *more, "--set", *settings],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def summary(text: str) -> list[float]:
    """Peak in GiB, bytes in GB and kernels, from the last line."""
    line = text.splitlines()[-1]
    found = re.fullmatch(r"peak: ([\d.]+) GiB, bytes: ([\d.]+) GB, kernels: (\d+)", line)
    assert found, line
    return [float(x) for x in found.groups()]


@pytest.mark.slow
@pytest.mark.skipif(not found("libtpu"), reason="libtpu is missing (requirements-plan.txt)")
def test_a_step_on_four_tpu_chips():
    text = planned("v5e:2x2", "--breakdown")
    assert "TPU v5" in text.splitlines()[0]
    peak, _, _ = summary(text)
    assert 0 < peak < 1
    rows = dict(re.findall(r"^(\S.*?)  +(\S.*)$", text, re.MULTILINE))
    assert int(rows["host callbacks"]) > 0  # the host matcher
    assert "all-reduce" in rows["collectives"] and "collective-permute" in rows["collectives"]
    assert any(name.startswith("convolution") for name in rows)
    assert any(name.startswith("student_forward/backbone") for name in rows)


@pytest.mark.slow
@pytest.mark.skipif(
    not found("jax_cuda12_plugin"),
    reason="the CUDA plug-in is missing (requirements-plan.txt)",
)
@pytest.mark.parametrize("more", [(), ("--evaluation",)])
def test_a_step_on_a_gpu(more):
    peak, moved, kernels = summary(planned("a100_40", *more))
    assert 0 < peak < 1 and moved > 0 and kernels > 50
