"""Reads pickles of strangers as data. Nothing in them is imported, called or hashed.

A pickle is a program for a stack machine. Python's own reader runs it: it imports names, calls them, and hashes keys of
any kind. Here `pickletools.genops` decodes the instructions, and this machine builds plain lists, tuples and
dictionaries; a class or function becomes a `Name`, an object or the result of a call a `Record` of what the file says
about it. Reading takes time and memory in proportion to the size of the file, whatever the file claims.
"""

import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zeroshift.errors import ZeroshiftError

__all__ = ["MAX_INSTRUCTIONS", "Name", "Pickle", "Readable", "Record", "Reference", "items_of", "read_pickle"]

MAX_INSTRUCTIONS = 2_000_000  # training checkpoints with the state of their optimizers have about 100,000
_MAX_INTEGER = 2**256
_MAX_KEY = 2**60  # beyond it, different integers can be made to have equal hashes


class Readable(Protocol):
    """An open file or a memory map."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


@dataclass(frozen=True, eq=False, slots=True)
class Name:
    """A class or function, by its full name."""

    value: str


@dataclass(eq=False, slots=True)
class Record:
    """An object: what the file says about it."""

    name: str
    """Full name of its class, or of the function that would make it."""
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False, slots=True)
class Reference:
    """Data outside the pickle, such as a tensor's storage."""

    value: Any


@dataclass(frozen=True)
class Pickle:
    """The content of a pickle."""

    root: Any
    names: set[str]
    """Full names of the classes and functions in it."""
    references: list[Reference]
    """Its references to data outside."""
    storages: list[Record]
    """Its calls of torch.storage._load_from_bytes, each with a file of torch.save."""
    plain_keys: bool = True
    """Whether all keys of dictionaries are texts, numbers or objects, which are hashed in constant time."""


@dataclass(frozen=True, eq=False, slots=True)
class _Key:
    """A key whose own hash could take forever."""

    value: Any


def items_of(value: Any) -> dict[Any, Any] | None:
    """The items of a dictionary of any class; None if the value is none."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Record) or not (value.items or value.name.lower().endswith("dict")):
        return None
    pairs = value.args[0] if value.args and isinstance(value.args[0], list) else []  # as Python 2 wrote them
    return value.items or {_key(pair[0]): pair[1] for pair in pairs if isinstance(pair, list) and len(pair) == 2}


def read_pickle(file: Readable, path: str | Path, limit: int = MAX_INSTRUCTIONS) -> Pickle:
    """The content of the pickle at the position of a file.

    Args:
        path: for messages.
        limit: greatest number of instructions.

    Raises:
        ZeroshiftError: a name that means code, or a call of an unknown function.
        pickle.UnpicklingError, ValueError and others: a damaged pickle.
    """
    machine = _Machine(path)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):  # type: ignore[arg-type]
        if count >= limit:
            raise ZeroshiftError(
                f"{path} has more than {limit:,} pickle instructions, far more than a generator needs."
            )
        if opcode.name == "STOP":
            break
        if opcode.name in _PUSHED:
            machine.push(_CONSTANTS.get(opcode.name, argument))
        elif opcode.name in _ACTIONS:
            _ACTIONS[opcode.name](machine, argument)
        else:
            raise pickle.UnpicklingError(f"unexpected instruction {opcode.name}")
    return Pickle(machine.pop(), machine.names, machine.references, machine.storages, machine.plain_keys)


_PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class _Machine:
    """The stack, the marks in it, and the memo."""

    def __init__(self, path: str | Path):
        self.path = path
        self.names: set[str] = set()
        self.references: list[Reference] = []
        self.storages: list[Record] = []
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.plain_keys = True

    def push(self, value: Any) -> None:
        if isinstance(value, int) and abs(value) >= _MAX_INTEGER:
            raise pickle.UnpicklingError("an integer of absurd size")
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise pickle.UnpicklingError("an instruction without operands")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise pickle.UnpicklingError("an instruction without operands")
        return self.stack[-1]

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise pickle.UnpicklingError("an instruction without a mark")
        values, self.stack = self.stack, self.marks.pop()
        return values

    def pop_many(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise pickle.UnpicklingError(f"there is no value {index} in the memo")
        self.stack.append(self.memo[index])

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        target = target.elements if isinstance(target, Record) else target
        if not isinstance(target, list):
            raise pickle.UnpicklingError("elements for something that is no list")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.top()
        target = target.items if isinstance(target, Record) else target
        if not isinstance(target, dict) or len(values) % 2:
            raise pickle.UnpicklingError("items for something that is no dictionary")
        keys = [_key(key) for key in values[::2]]
        self.plain_keys &= not any(isinstance(key, _Key) for key in keys)
        target.update(zip(keys, values[1::2], strict=True))

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("a name that is no text")
        full = f"{module}.{name}"
        self.names.add(full)
        if _means_code(module, name):
            raise ZeroshiftError(
                f"{self.path} asks for {_shown(full)}, which runs code and which no generator needs: the file is "
                "malicious or belongs to another program. Nothing in it was executed."
            )
        self.stack.append(Name(full))

    def make(self, called: Any, args: Any) -> None:
        """The result of a call, or an object of a class."""
        if isinstance(called, Reference) and isinstance(called.value, tuple) and called.value[:1] == ("module",):
            called = called.value[1] if len(called.value) > 1 else None  # torch.save of a whole module, before 1.6
        if not isinstance(called, Name) or not isinstance(args, tuple):
            if isinstance(called, Record):
                raise _refused_call(self.path, f"the result of {called.name}")
            raise pickle.UnpicklingError("a call of something that is no class or function")
        if called.value in _RECONSTRUCTORS and args and isinstance(args[0], Name):
            called, args = args[0], args[1:]
        elif not _may_be_called(called.value):
            raise _refused_call(self.path, called.value)
        self.stack.append(Record(called.value, args))
        self.plain_keys &= not (args and called.value == "collections.OrderedDict")  # with pairs of any kind
        if called.value == "torch.storage._load_from_bytes":
            self.storages.append(self.stack[-1])

    def refer(self, value: Any) -> None:
        self.references.append(Reference(value))
        self.stack.append(self.references[-1])

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if not isinstance(target, Record):
            raise pickle.UnpicklingError("a state for something that is no object")
        target.state = state


def _key(key: Any) -> Any:
    """A key that is hashed in constant time. Other keys count as different from all others."""
    simple = key is None or isinstance(key, (str, bytes, float, Name, Record, Reference))
    if simple or (isinstance(key, int) and abs(key) < _MAX_KEY):
        return key
    return _Key(key)


def _inst(machine: _Machine, argument: str) -> None:
    args = tuple(machine.pop_mark())
    machine.name(*_split(argument))
    machine.make(machine.pop(), args)


def _obj(machine: _Machine, _: Any) -> None:
    called, *args = machine.pop_mark() or [None]
    machine.make(called, tuple(args))


def _call(machine: _Machine, count: int) -> None:
    """REDUCE and NEWOBJ: class, arguments; NEWOBJ_EX: class, arguments, keywords."""
    called, args, *_ = machine.pop_many(count)
    machine.make(called, args)


def _dictionary(machine: _Machine) -> None:
    values = machine.pop_mark()
    machine.push({})
    machine.set_items(values)


def _group(machine: _Machine, name: str) -> None:
    machine.push(Record(name, elements=machine.pop_mark()))


def _split(argument: str) -> tuple[str, str]:
    module, _, name = argument.rpartition(" ")
    return module, name


_ACTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_SET": lambda machine, _: machine.push(Record("builtins.set")),
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.pop() if machine.stack else machine.pop_mark(),
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.push(machine.top()),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.push(machine.pop_many(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.pop_many(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.pop_many(3)),
    "DICT": lambda machine, _: _dictionary(machine),
    "FROZENSET": lambda machine, _: _group(machine, "builtins.frozenset"),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items(list(machine.pop_many(2))),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda machine, index: machine.put(index)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.get(index)),
    "GLOBAL": lambda machine, argument: machine.name(*_split(argument)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.pop_many(2)),
    "INST": _inst,
    "OBJ": _obj,
    "REDUCE": lambda machine, _: _call(machine, 2),
    "NEWOBJ": lambda machine, _: _call(machine, 2),
    "NEWOBJ_EX": lambda machine, _: _call(machine, 3),
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": lambda machine, argument: machine.refer(argument),
    "BINPERSID": lambda machine, _: machine.refer(machine.pop()),
}

# Nothing is ever called, so that the lists below protect nobody. They decide which files are refused with a sentence:
# a file that wants code to run is not one to use.
_CODE_MODULES = {
    "os", "posix", "nt", "subprocess", "sys", "importlib", "runpy", "shutil", "socket", "pty", "ctypes", "marshal",
    "code", "webbrowser", "pip", "commands", "imp", "multiprocessing",
}  # fmt: skip
_CODE_BUILTINS = {
    "eval", "exec", "execfile", "compile", "open", "file", "__import__", "input", "breakpoint", "globals", "locals",
    "vars", "setattr", "delattr", "apply", "map", "filter", "exit", "quit", "memoryview",
}  # fmt: skip
_CODE_NAMES = {"types.CodeType", "types.FunctionType", "torch.load", "torch.jit.load", "numpy.load"}
_TYPES = {
    "set", "frozenset", "dict", "list", "tuple", "int", "float", "bool", "str", "bytes", "bytearray", "complex",
    "slice", "range", "xrange", "iter", "reversed", "enumerate", "zip", "object", "getattr",
}  # fmt: skip
_DATA_MODULES = {"datetime", "collections", "pathlib", "decimal", "fractions", "uuid", "zoneinfo", "enum", "functools"}
_RECONSTRUCTORS = {
    f"{module}.{name}" for module in ("copyreg", "copy_reg") for name in ("_reconstructor", "__newobj__")
}
_FUNCTION = re.compile(
    r"torch\.jit\._pickle\.\w+|torch\._utils\._rebuild\w*"
    r"|torch\._tensor\._rebuild\w*|torch\.storage\._load_from_bytes"
    r"|torch\.serialization\._get_layout|torch\.(device|dtype)"
    r"|numpy\.(dtype|ndarray)|numpy\.(_)?core\.(multiarray|numeric)\.(scalar|_reconstruct|_frombuffer)"
    r"|numpy\.random\._pickle\.\w+|(\w+\.)*__pyx_unpickle_\w+|_codecs\.encode|re\._compile|(\w+\.)*persistence\._reconstruct_persistent_obj"
)


def _means_code(module: str, name: str) -> bool:
    if module in ("builtins", "__builtin__"):
        return name in _CODE_BUILTINS
    full = f"{module}.{name}"
    return module.split(".")[0] in _CODE_MODULES or full in _CODE_NAMES or full.startswith("torch.hub.")


def _is_class(name: str) -> bool:
    """Whether a name is written like a class."""
    return name.rpartition(".")[2].lstrip("_")[:1].isupper()


def _may_be_called(full: str) -> bool:
    module, _, name = full.rpartition(".")
    known = module in _DATA_MODULES or (module in ("builtins", "__builtin__") and name in _TYPES)
    return known or _is_class(name) or _FUNCTION.fullmatch(full) is not None


def _refused_call(path: str | Path, called: str) -> ZeroshiftError:
    return ZeroshiftError(
        f"{path} asks for a call of {_shown(called)}; zeroshift reads tensors and plain data only, and no code was "
        "executed. If you trust the file, open it in its own program and save the generator's state_dict alone."
    )


def _shown(name: str) -> str:
    return name if len(name) <= 120 else name[:120] + "…"
