"""Reads pickles without running what is in them.

A pickle is a program for a small stack machine. Python's own machine calls whatever function a
pickle names, which is not safe with a downloaded file. This one makes numbers, strings and plain
containers, and calls only the functions that its caller lists; everything else is refused by name.
`pickletools` (of the standard library) takes the program apart, so that a wrong size in a damaged
file makes no room for more bytes than the file has.
"""

from __future__ import annotations

import dataclasses
import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

_SIZED = (str, bytes, bytearray, tuple, list, dict, set, frozenset)
# Arguments of functions may be as long, taken together, as the pickle and this.
_MORE_ARGUMENTS = 2**20


class Refused(Exception):
    """A pickle that asks for something which is not allowed; the message names that."""


@dataclasses.dataclass(frozen=True)
class Maker:
    """A function that pickles may call.

    Attributes:
      make: the function. It gets what the pickle gives it, so it must trust no argument.
    """

    make: Callable[..., Any]


class Buildable:
    """An object to which a pickle gives its content after making it."""

    def build(self, state: Any) -> None:
        """Takes the content; `state` is whatever the pickle has, so it is not to be trusted."""
        raise NotImplementedError


def unpickle(
    file: BinaryIO,
    known: Mapping[str, Any],
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Runs one pickle, of any protocol, and leaves the file at its end.

    Args:
      file: stands at the start of the pickle.
      known: {"module.name": what stands for it}. Only those that are a `Maker` can be called.
      persistent_load: gives the object of a persistent id, if the pickle may have any.

    Returns:
      Numbers, strings, plain containers, and what makers and `persistent_load` returned.

    Raises:
      Refused: the pickle asks for anything else.
      Exception: of any other type, if the pickle is damaged.
    """
    rest = _Rest(file)
    return _Machine(known, persistent_load, rest.size + _MORE_ARGUMENTS).run(rest)


def plain_key(key: Any) -> Any:
    """Returns `key` if it can be a key of a dictionary: a number, a string, or a tuple of those.

    Raises:
      Refused: it is anything else. (The hash of a tuple that is nested deeply enough would end the
        process.)
    """
    for part in key if isinstance(key, tuple) else (key,):
        if not isinstance(part, (str, bytes, int, float, type(None))):
            raise Refused(f"it has a {type(part).__name__} in the key of a dictionary or in a set")
    return key


def dictionary(items: Any = ()) -> dict[Any, Any]:
    """Returns a dictionary of pairs; stands for all classes of dictionaries."""
    pairs = items.items() if isinstance(items, dict) else items
    return {plain_key(key): value for key, value in pairs}


class _Rest:
    """The rest of a file, of which no read makes room for more bytes than are left."""

    def __init__(self, file: BinaryIO):
        start = file.tell()
        self.size = file.seek(0, 2) - start
        file.seek(start)
        self._file, self.readline = file, file.readline

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self.size))


class _Machine:
    def __init__(
        self,
        known: Mapping[str, Any],
        persistent_load: Callable[[Any], Any] | None,
        arguments: int,
    ) -> None:
        self._known, self._persistent_load = known, persistent_load
        self._left = arguments
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # one stack for each mark that is open
        self._memo: dict[int, Any] = {}

    def run(self, file: _Rest) -> Any:
        for operation, argument, _ in pickletools.genops(file):
            name = operation.name
            if name in _VALUES:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _OPERATIONS:
                _OPERATIONS[name](self, argument)
            else:
                if name == "INST":  # makes an object of the class that its argument names
                    self.find(*argument.split(" ", 1))
                raise Refused(f"it wants to use the operation {name} of pickles")
        return self._stack.pop()

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no string")
        module = "builtins" if module == "__builtin__" else module  # its name in Python 2
        full = f"{module}.{name}"
        if full not in self._known:
            shown = full[:100] if full.isprintable() else repr(full[:100])
            raise Refused(f"it wants to use {shown}")
        self._stack.append(self._known[full])

    def find_popped(self) -> None:
        module, name = self.pop(2)
        self.find(module, name)

    def make(self) -> None:
        maker, arguments = self.pop(2)
        if not isinstance(maker, Maker) or not isinstance(arguments, tuple):
            raise Refused(f"it wants to call a {type(maker).__name__}")
        self._spend(arguments)
        self._stack.append(maker.make(*arguments))

    def build(self) -> None:
        state, made = self._stack.pop(), self._stack[-1]
        if isinstance(made, Buildable):
            self._spend(state)
            made.build(state)
        elif not isinstance(made, dict):  # attributes of a dictionary: `_metadata` of torch
            raise Refused(f"it wants to set attributes of a {type(made).__name__}")

    def _spend(self, arguments: Any) -> None:
        """Counts what is given to a function, which may copy it, and a pickle gives it at will."""
        self._left -= sum(len(x) for x in arguments if isinstance(x, _SIZED))
        if self._left < 0:
            raise ValueError("it copies the same objects too often")

    def load_persistent(self, identity: Any) -> None:
        if self._persistent_load is None:
            raise Refused("it refers to objects outside of it")
        self._stack.append(self._persistent_load(identity))

    def pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("takes more than it has")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def pop_marked(self) -> list[Any]:
        taken, self._stack = self._stack, self._below.pop()
        return taken

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def drop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self.pop_marked()

    def append(self, values: Iterable[Any]) -> None:
        self._target(list).extend(values)

    def add(self, values: Iterable[Any]) -> None:
        self._target(set).update(map(plain_key, values))

    def set_items(self, flat: list[Any]) -> None:
        self._target(dict).update(dictionary(_pairs(flat)))

    def _target(self, kind: type) -> Any:
        target = self._stack[-1]
        if type(target) is not kind:
            raise Refused(f"it wants to fill a {type(target).__name__} as a {kind.__name__}")
        return target

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def remember(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def duplicate(self) -> None:
        self._stack.append(self._stack[-1])


def _pairs(flat: list[Any]) -> Iterable[tuple[Any, Any]]:
    if len(flat) % 2:
        raise ValueError("a key without its value")
    return zip(flat[::2], flat[1::2])


# Operations that push their argument.
_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_OPERATIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.drop(),
    "POP_MARK": lambda machine, _: machine.pop_marked(),
    "DUP": lambda machine, _: machine.duplicate(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_marked())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "LIST": lambda machine, _: machine.push(machine.pop_marked()),
    "DICT": lambda machine, _: machine.push(dictionary(_pairs(machine.pop_marked()))),
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(plain_key, machine.pop_marked()))),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_marked()),
    "ADDITEMS": lambda machine, _: machine.add(machine.pop_marked()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_marked()),
    "GLOBAL": lambda machine, names: machine.find(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.find_popped(),
    "REDUCE": lambda machine, _: machine.make(),
    "NEWOBJ": lambda machine, _: machine.make(),
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": lambda machine, identity: machine.load_persistent(identity),
    "BINPERSID": lambda machine, _: machine.load_persistent(machine.pop(1)[0]),
    "MEMOIZE": lambda machine, _: machine.remember(None),
}
for _name in ("PUT", "BINPUT", "LONG_BINPUT"):
    _OPERATIONS[_name] = lambda machine, index: machine.remember(index)
for _name in ("GET", "BINGET", "LONG_BINGET"):
    _OPERATIONS[_name] = lambda machine, index: machine.recall(index)
