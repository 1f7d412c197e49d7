"""Reads the optimised program that XLA compiled (`compiled.as_text()`): what runs, and its traffic.

Traffic is that with a device's memory, counted by instruction: each reads its operands and writes
its result once. A TPU's own fast memory is left out. This is an upper bound where an instruction
reads only a part of an operand, and where an operand stays in a cache. A loop counts as often as it
runs, where XLA knows how often, and of a conditional's branches the one with the most traffic.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

# Bytes of one element, by XLA's name of the dtype.
_BYTES = {"pred": 1, "u8": 1, "s8": 1, "u16": 2, "s16": 2, "bf16": 2, "f16": 2}
_BYTES |= {"u32": 4, "s32": 4, "f32": 4, "u64": 8, "s64": 8, "f64": 8, "c64": 8}
_ARRAY = re.compile(rf"\b({'|'.join(_BYTES)})\[([0-9,]*)\](?:{{([^}}]*)}})?")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*{\s*$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_TRIPS = re.compile(r'known_trip_count":{"n":"(\d+)"')

# What only names, groups or views data, and takes no time.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"}
_FREE |= {"partition-id", "replica-id", "opt-barrier", "add-dependency"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_MODULES = ("backbone", "pyramid", "pixel_decoder", "transformer", "mask_head", "class_head")
# Scopes that the training step names (`jax.named_scope`), in its order.
_SCOPES = ("weak_view", "teacher_segments", "strong_view", "student_forward", "match_all")
_SCOPES += ("label_loss", "unlabel_loss", "updated_state")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of the program that runs by itself, a kernel or a library call.

    Attributes:
      op: XLA's name of the operation, such as "fusion".
      result: its type, as text.
      times: how often it runs in a step.
      operands: their types, as text.
      traffic: bytes of operands and result, of one run.
      name: where it comes from: JAX's scopes and operation.
      text: the whole line.
    """

    op: str
    result: str
    times: int
    operands: tuple[str, ...]
    traffic: int
    name: str
    text: str

    @property
    def target(self) -> str:
        """The library function of a custom call; "" for other instructions."""
        found = _TARGET.search(self.text) if self.op == "custom-call" else None
        return found.group(1) if found else ""

    @property
    def part(self) -> str:
        """The part of the model or of the step that it belongs to."""
        backward = " backward" if "transpose(" in self.name else ""
        scopes = [scope for scope in _SCOPES if re.search(rf"\b{scope}\b", self.name)]
        modules = [module for module in _MODULES if module in self.name]
        if not scopes and not modules:
            return "other"
        return "/".join([*scopes[:1], *modules[:1]]) + backward


class Program:
    """An optimised program.

    Attributes:
      computations: the lines of each computation, by name.
      entry: name of the computation that runs.
    """

    def __init__(self, text: str):
        """Splits the text into computations.

        Raises:
          ValueError: it is not the text of a compiled program.
        """
        self.computations: dict[str, list[str]] = {}
        self.entry, current = "", None
        for line in text.splitlines():
            found = None if line.startswith(" ") else _COMPUTATION.match(line)
            if found:
                current = found.group(2)
                self.computations[current] = []
                self.entry = current if found.group(1) else self.entry
            elif line.startswith("}"):
                current = None
            elif current and " = " in line:
                self.computations[current].append(line)
        if not self.entry:
            raise ValueError("no program: the text has no ENTRY computation")

    def instructions(self) -> list[Instruction]:
        """All instructions that take time, in the order of the text."""
        return list(self._walk(self.entry, 1))

    def _walk(self, computation: str, times: int) -> Iterator[Instruction]:
        types: dict[str, str] = {}
        for line in self.computations.get(computation, ()):
            found = _INSTRUCTION.match(line)
            if not found:
                continue
            name, result, op, rest = found.groups()
            types[name] = result
            if op in _FREE or op.endswith("-done"):  # what ends was counted when it began
                continue
            inner = self._called(op, line, times)
            if inner is not None:
                yield from inner
                continue
            names = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            operands = tuple(types.get(name, "") for name in names)
            traffic = sum(map(array_bytes, (result, *operands)))
            if op in ("copy-start", "slice-start"):
                traffic = _moved(result)
            origin = _OP_NAME.search(line)
            source = origin.group(1) if origin else ""
            yield Instruction(op, result, times, operands, traffic, source, line)

    def _called(self, op: str, line: str, times: int) -> list[Instruction] | None:
        """The instructions that a loop, a conditional or a call runs; None for any other."""
        if op == "while":
            body = re.search(r"body=%?([\w.\-]+)", line).group(1)
            trips = _TRIPS.search(line)
            return list(self._walk(body, times * (int(trips.group(1)) if trips else 1)))
        if op == "call":
            return list(self._walk(re.search(r"to_apply=%?([\w.\-]+)", line).group(1), times))
        if op == "conditional":
            names = re.search(r"branch_computations={([^}]*)}", line)
            names = (
                names.group(1)
                if names
                else " ".join(re.findall(r"(?:true|false)_computation=(%?[\w.\-]+)", line))
            )
            branches = [list(self._walk(n, times)) for n in re.findall(r"%?([\w.\-]+)", names)]
            return max(branches, key=lambda branch: sum(x.traffic * x.times for x in branch))
        return None

    def inside(self, instruction: Instruction) -> list[str]:
        """The lines of what a fusion consists of; of another instruction its own line."""
        found = re.search(r"calls=%?([\w.\-]+)", instruction.text)
        return self.computations.get(found.group(1), []) if found else [instruction.text]


def array_bytes(text: str, everywhere: bool = False) -> int:
    """Bytes of all arrays of a type; those in a TPU's own fast memory only if `everywhere`."""
    return sum(
        _BYTES[dtype] * math.prod(_sides(sides))
        for dtype, sides, layout in _ARRAY.findall(text)
        if everywhere or "S(1)" not in layout
    )


def _moved(result: str) -> int:
    """Bytes that a transfer reads and writes outside of a TPU's own fast memory.

    Args:
      result: its type, which begins with the whole array that it reads from, and what it writes.
    """
    ends = _ARRAY.findall(result)[:2]
    size = min(_BYTES[dtype] * math.prod(_sides(sides)) for dtype, sides, _ in ends)
    return size * sum("S(1)" not in layout for _, _, layout in ends)


def _sides(text: str) -> list[int]:
    return [int(side) for side in text.split(",") if side]


def _shape(text: str) -> list[int]:
    """The sides of the first array of a type."""
    found = _ARRAY.search(text)
    return _sides(found.group(2)) if found else []


def kernels(instructions: list[Instruction]) -> tuple[int, int]:
    """Numbers of library calls and of fused kernels in the program, each counted once."""
    calls = sum(x.op == "custom-call" for x in instructions)
    return calls, sum(x.op == "fusion" for x in instructions)


def collectives(instructions: list[Instruction]) -> dict[str, tuple[int, int]]:
    """Number and bytes of each kind of exchange between devices: {kind: (runs, bytes)}."""
    found: dict[str, tuple[int, int]] = {}
    for x in instructions:
        kind = x.op.removesuffix("-start")
        if kind in COLLECTIVES:
            runs, size = found.get(kind, (0, 0))
            halves = 2 if x.op.endswith("-start") else 1  # what is sent and what is received
            sent = array_bytes(x.result, everywhere=True) // halves
            found[kind] = runs + x.times, size + x.times * sent
    return found


def host_callbacks(instructions: list[Instruction]) -> int:
    """Number of exchanges with a Python function on the host."""
    python = sum("python" in x.target and "callback" in x.target for x in instructions)
    return python + sum(x.op == "send" and "is_host_transfer=true" in x.text for x in instructions)


def products(program: Program, instructions: list[Instruction]) -> Counter[str]:
    """Numbers of convolutions and matrix products: {kind and dtype of the result: number}."""
    found: Counter[str] = Counter()
    for x in instructions:
        if x.op == "custom-call":
            kind = _library_product(x.target)
            if kind:
                found[f"{kind} {_dtype(x.result)}"] += 1
            continue
        for line in program.inside(x):
            inner = _INSTRUCTION.match(line)
            if inner and inner.group(3) in ("convolution", "dot"):
                # On a TPU, a matrix product is a convolution without a window.
                spatial = inner.group(3) == "convolution" and "window={" in line
                found[f"{'convolution' if spatial else 'product'} {_dtype(inner.group(2))}"] += 1
    return found


def _library_product(target: str) -> str:
    """What a library function computes: its kind, and what is fused with it; "" for others."""
    if "convBiasActivation" in target:
        return "convolution + bias + activation"
    if "conv" in target and "cudnn" in target:
        return "convolution"
    return "product" if "cublas" in target else ""


def library_flops(instructions: list[Instruction]) -> int:
    """Floating point operations of the library's products and convolutions, on GPUs nearly all."""
    return sum(x.times * _flops(x) for x in instructions if _library_product(x.target))


def _flops(call: Instruction) -> int:
    if "cublas" in call.target:
        lhs = _shape(call.operands[0])
        axes = re.search(r'lhs_contracting_dimensions":\[([^\]]*)\]', call.text).group(1)
        summed = math.prod(lhs[int(axis)] for axis in re.findall(r"\d+", axes))
        return 2 * math.prod(_shape(call.result)) * summed
    # Each output pixel and channel is a sum over the kernel's window and input channels, in the
    # gradients as well.
    if "BackwardFilter" in call.target:
        kernel, output = _shape(call.result), _shape(call.operands[1])
    elif "BackwardInput" in call.target:
        kernel, output = _shape(call.operands[1]), _shape(call.operands[0])
    else:
        kernel, output = _shape(call.operands[1]), _shape(call.result)
    labels = re.search(r"dim_labels=\w+_(\w+)->", call.text).group(1)
    return 2 * math.prod(output) * math.prod(kernel) // kernel[labels.index("o")]


def _dtype(text: str) -> str:
    found = _ARRAY.search(text)
    return found.group(1) if found else "?"


def traffic_by_part(instructions: list[Instruction]) -> dict[str, tuple[int, int]]:
    """Bytes and kernels of each part, the largest first: {part: (bytes, kernels)}."""
    total: Counter[str] = Counter()
    number: Counter[str] = Counter()
    for x in instructions:
        total[x.part] += x.traffic * x.times
        number[x.part] += x.op in ("fusion", "custom-call")
    return {part: (size, number[part]) for part, size in total.most_common()}
