"""The import rules of docs/architecture.md, checked in the source text, including imports inside functions."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

# Packages by level; a module imports from its own level and the ones before it.
LEVELS = (
    ("errors",),
    ("core", "config", "io"),
    ("generators",),
    ("clip", "sampling"),
    ("networks", "methods"),
    ("inversion",),
    ("training",),
    ("evaluation",),
    ("benchmark",),
    ("miniature",),
    ("report",),
    ("api",),
    ("studio",),
    ("cli",),
)
# The package itself (public names) and `python -m zeroshift` are above all levels.
TOP = ("zeroshift", "zeroshift.__main__")
LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}

# Imports (and names in strings) that break the direction, by (importer, imported), with the reason. At most two.
EXCEPTIONS: dict[tuple[str, str], str] = {}


@dataclass(frozen=True)
class Import:
    """One import of a module of this package; `name` is the imported name of a `from` import."""

    importer: str
    module: str
    name: str
    line: int


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> Mapping[str, ast.Module]:
    """The syntax tree of every module by name."""
    paths = sorted((SOURCE / "zeroshift").rglob("*.py"))
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in paths}


def imports_of(importer: str, tree: ast.Module, modules: Mapping[str, object]) -> Iterator[Import]:
    """The imports of modules of this package, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "zeroshift":
                    yield Import(importer, alias.name, "", node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}:{node.lineno} is a relative import"
            if node.module is None or node.module.split(".")[0] != "zeroshift":
                continue
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                is_module = submodule in modules
                yield Import(
                    importer, submodule if is_module else node.module, "" if is_module else alias.name, node.lineno
                )


def all_imports() -> list[Import]:
    return [each for name, tree in trees().items() for each in imports_of(name, tree, trees())]


def all_names_in_strings() -> Iterator[Import]:
    """Strings such as "zeroshift.methods.ipl:IPL"."""
    for importer, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                module, colon, name = node.value.partition(":")
                if colon and re.fullmatch(r"zeroshift(\.\w+)+", module):
                    yield Import(importer, module, name, node.lineno)


def package_of(module: str) -> str:
    return module.split(".")[1]


def goes_up(importer: str, imported: str) -> bool:
    """Whether an import violates the order of the levels."""
    if importer in TOP:
        return False
    if imported in TOP:
        return True
    return LEVEL[package_of(imported)] > LEVEL[package_of(importer)]


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected components with more than one node (Tarjan), and the nodes that point to themselves."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for successor in sorted(graph.get(node, ())):
            if successor not in index:
                visit(successor)
            if successor in stack:
                low[node] = min(low[node], low[successor])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1 or node in graph.get(node, ()):
                components.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return components


def test_cycles_are_detected() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}, "e": {"a"}}) == [["b", "c"], ["d"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_hidden_imports_are_detected() -> None:
    text = """
import zeroshift.a
from zeroshift import b, c
from zeroshift.d import e as f
import torch
if TYPE_CHECKING:
    from zeroshift.g import h
def function():
    from zeroshift.i import j
"""
    detected = imports_of("zeroshift.x", ast.parse(text), {"zeroshift.b": None})
    assert sorted((each.module, each.name) for each in detected) == [
        ("zeroshift", "c"), ("zeroshift.a", ""), ("zeroshift.b", ""), ("zeroshift.d", "e"), ("zeroshift.g", "h"),
        ("zeroshift.i", "j"),
    ]  # fmt: skip


def test_every_package_has_a_level() -> None:
    assert {package_of(name) for name in trees() if name not in TOP} <= set(LEVEL)


def test_imports_go_downward() -> None:
    """Registries name their entries as "module:attribute"; these names must follow the order, too."""
    named = [(each.importer, each.module, each.line) for each in [*all_imports(), *all_names_in_strings()]]
    wrong = {(importer, module): line for importer, module, line in named if goes_up(importer, module)}
    listed = [f"{a}:{line} names {b}" for (a, b), line in wrong.items() if (a, b) not in EXCEPTIONS]
    assert not listed, "\n".join(listed)
    assert set(EXCEPTIONS) <= set(wrong), "remove exceptions that are no longer needed"
    assert len(EXCEPTIONS) <= 2


def test_modules_named_in_strings_exist() -> None:
    missing = [
        f"{each.importer}:{each.line} names {each.module}"
        for each in all_names_in_strings()
        if each.module not in trees()
    ]
    assert not missing, "\n".join(missing)


def test_modules_have_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {name: set() for name in trees()}
    for each in all_imports():
        if (each.importer, each.module) not in EXCEPTIONS:
            graph[each.importer].add(each.module)
    listed = ["cycle: " + ", ".join(cycle) for cycle in cycles(graph)]
    assert not listed, "\n".join(listed)


def test_packages_have_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {package: set() for package in LEVEL}
    for each in all_imports():
        if {each.importer, each.module} & set(TOP) or (each.importer, each.module) in EXCEPTIONS:
            continue
        importer, imported = package_of(each.importer), package_of(each.module)
        if importer != imported:
            graph[importer].add(imported)
    assert not cycles(graph), cycles(graph)


def test_no_private_name_is_imported() -> None:
    private = [
        f"{each.importer}:{each.line} imports {each.name or each.module}"
        for each in all_imports()
        if each.name.startswith("_") or any(part.startswith("_") for part in each.module.split(".")[1:])
    ]
    assert not private, "\n".join(private)


# Calls that change something for the whole process, and libraries that write to the terminal: commands only.
PROCESS_WIDE = {"umask", "filterwarnings", "simplefilter", "mallopt", "putenv"}
TERMINAL = {"rich", "tqdm", "tyro"}
# Modules that may, by name or by package, with the reason.
ALLOWED = {
    "zeroshift.cli": "the command line",
    "zeroshift.miniature.commands": "subcommands",
    "zeroshift.miniature.training": "maintainers' recipes: each is a command",
    "zeroshift.miniature.exams": "maintainers' exams: each is a command",
    "zeroshift.generators.checkpoints.nvidia": "a filter within catch_warnings: the files hold deprecated storages",
}


def test_only_commands_act_on_the_process_and_the_terminal() -> None:
    wrong = []
    for name, tree in trees().items():
        if any(name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in PROCESS_WIDE:
                wrong.append(f"{name}:{node.lineno} uses {node.attr}")
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{name} imports {each}" for each in modules if each.split(".")[0] in TERMINAL]
    assert not wrong, "\n".join(wrong)


def setting_fields() -> set[str]:
    """The fields of AdaptConfig, of the options of methods and generator families, and of dataclasses in them."""
    classes = {
        node.name: node
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(each) for each in node.decorator_list)
    }
    bases = {"MethodOptions", "GeneratorOptions"}
    options = [
        name for name, node in classes.items() if bases & {ast.unparse(base).split(".")[-1] for base in node.bases}
    ]
    waiting, fields = ["AdaptConfig", *options], set()
    while waiting:
        for statement in classes[waiting.pop()].body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                fields.add(statement.target.id)
                kinds = {node.id for node in ast.walk(statement.annotation) if isinstance(node, ast.Name)}
                waiting += kinds & classes.keys()
    return fields


def attributes_read(tree: ast.AST) -> set[str]:
    """Attributes that are read from any object, except in functions that check values."""
    checks = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == "validate"
        for node in ast.walk(function)
    }
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node not in checks
    }


def test_every_configuration_field_is_read() -> None:
    read: set[str] = set()
    for name, tree in trees().items():
        if not name.startswith("zeroshift.config"):
            read |= attributes_read(tree)
    for node in ast.walk(trees()["zeroshift.config.settings"]):  # a property reads fields on behalf of its users
        if (
            isinstance(node, ast.FunctionDef)
            and node.name in read
            and "property" in map(ast.unparse, node.decorator_list)
        ):
            read |= attributes_read(node)
    fields = setting_fields()
    assert {"target", "lr", "t0", "num_context"} <= fields
    assert fields <= read, f"nothing reads {sorted(fields - read)}"


@pytest.mark.parametrize(
    "program",
    [
        "import zeroshift",
        "from zeroshift.cli.main import main; assert main(['--help']) == 0",
        "from zeroshift.cli.main import main; assert main(['--version']) == 0",
    ],
)
def test_import_and_help_load_no_heavy_library(program: str) -> None:
    libraries = "{'torch', 'numpy', 'open_clip', 'torchvision', 'tyro'}"
    check = f"import sys; heavy = {libraries} & set(sys.modules); sys.exit(f'imported {{heavy}}' if heavy else 0)"
    subprocess.run([sys.executable, "-c", f"{program}\n{check}"], check=True, stdout=subprocess.DEVNULL)


def test_every_public_class_name_exists_once() -> None:
    places: dict[str, list[str]] = {}
    for module, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}
