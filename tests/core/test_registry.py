"""Names come from this package, from a decorator and from entry points; each name means one thing."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from zeroshift.core.registry import Registry
from zeroshift.errors import ZeroshiftError

GROUP = "zeroshift.test-things"

# "module:attribute" of two objects of the standard library, and one that does not exist.
BUILTIN = {"first": "fractions:Fraction", "second": "decimal:Decimal", "broken": "no_such_module:Thing"}

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package with entry points on sys.path, as an installer would."""

    def write(package: str, text: str, **points: str) -> None:
        (tmp_path / f"{package}.py").write_text(text)
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (folder / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def registry(**builtin: str) -> Registry[type]:
    return Registry("thing", GROUP, builtin)


def test_decorator_adds_and_returns_the_object() -> None:
    things = registry()

    @things.register("mine")
    class Mine:
        pass

    assert isinstance(Mine, type)
    assert things["mine"] is Mine
    assert (list(things), len(things), "mine" in things) == (["mine"], 1, True)


def test_builtin_ones_come_first_in_their_order() -> None:
    things = registry(**BUILTIN)
    things.register("another")(int)
    assert list(things) == ["first", "second", "broken", "another"]
    assert [things["second"].__name__, things["first"].__name__] == ["Decimal", "Fraction"]
    assert list(things)[:2] == ["first", "second"], "use does not change the order"


def test_names_are_listed_without_an_import() -> None:
    program = f"""
import sys
from zeroshift.core.registry import Registry
things = Registry("thing", {GROUP!r}, {BUILTIN!r})
assert list(things) == {list(BUILTIN)!r} and "first" in things and "third" not in things
assert "fractions" not in sys.modules
things["first"]
assert "fractions" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_unknown_names_get_close_suggestions() -> None:
    things = registry(**BUILTIN)
    with pytest.raises(ZeroshiftError, match=r"There is no thing 'secnod'\. Did you mean second\? Available: first, s"):
        things["secnod"]
    with pytest.raises(ZeroshiftError, match=r"There is no thing 'xyz'\. Available: first, second, broken\."):
        things["xyz"]


def test_get_of_a_mapping() -> None:
    things = registry(**BUILTIN)
    assert things.get("xyz") is None
    assert things.get("xyz", int) is int
    assert things.get("first") is things["first"]


def test_a_name_cannot_be_registered_twice() -> None:
    things = registry(**BUILTIN)
    things.register("mine")(int)
    with pytest.raises(ZeroshiftError, match=r"already a thing 'mine' \(builtins:int\)\. Choose another name"):
        things.register("mine")(float)
    with pytest.raises(ZeroshiftError, match=r"already a thing 'second' \(decimal:Decimal\)"):
        things.register("second")(float)
    assert things["mine"] is int
    assert things["second"].__name__ == "Decimal"


def test_values_of_one_class_are_distinguished() -> None:
    """A value has the module of its class, but is not a definition in that module."""
    values: Registry[Path] = Registry("place", GROUP)
    values.register("here")(Path("a"))
    values.register("here")(Path("a"))
    with pytest.raises(ZeroshiftError, match="already a place 'here'"):
        values.register("here")(Path("b"))
    assert values["here"] == Path("a")


def test_a_reloaded_module_replaces_its_definitions() -> None:
    things = registry()
    text = "@things.register('mine')\nclass Mine:\n    pass\n"
    classes = []
    for _ in range(2):
        module = ModuleType("reloaded")
        module.__dict__["things"] = things
        exec(text, module.__dict__)
        classes.append(module.__dict__["Mine"])
        assert things["mine"] is classes[-1]
    assert classes[0] is not classes[1]


def test_entry_points_of_installed_packages(install: Install) -> None:
    install("plugin_one", "class Mine:\n    pass\n", mine="plugin_one:Mine")
    things = registry(first="fractions:Fraction")
    assert list(things) == ["first", "mine"]
    assert "plugin_one" not in sys.modules, "imported on first use"
    assert things["mine"].__module__ == "plugin_one"
    assert things["mine"] is things["mine"]


def test_a_package_may_use_decorator_and_entry_point(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"import {__name__} as tests\n\n@tests.SHARED.register('mine')\nclass Mine:\n    pass\n"
    install("plugin_two", text, mine="plugin_two:Mine")
    monkeypatch.setattr(sys.modules[__name__], "SHARED", registry(), raising=False)
    things = sys.modules[__name__].SHARED
    assert things["mine"] is sys.modules["plugin_two"].Mine


def test_two_packages_with_one_name(install: Install) -> None:
    install("plugin_three", "", mine="plugin_three:Mine")
    install("plugin_four", "", mine="plugin_four:Mine")
    with pytest.raises(ZeroshiftError, match=r"Two packages define the thing 'mine': plugin_\w+:Mine and plugin_"):
        list(registry())


def test_an_entry_point_cannot_replace_a_builtin_one(install: Install) -> None:
    install("plugin_five", "class Mine:\n    pass\n", first="plugin_five:Mine")
    with pytest.raises(ZeroshiftError, match="Two packages define the thing 'first': fractions:Fraction and plugin_f"):
        registry(first="fractions:Fraction")["first"]


@pytest.mark.parametrize(
    ("text", "reason"), [("import no_such_library", "no_such_library"), ("", "has no attribute 'Mine'")]
)
def test_a_package_that_cannot_be_imported(install: Install, text: str, reason: str) -> None:
    install("plugin_six", text, mine="plugin_six:Mine", other="plugin_six:Other")
    things = registry()
    assert list(things) == ["mine", "other"], "listing imports nothing"
    with pytest.raises(ZeroshiftError, match=f"'mine' cannot be imported from plugin_six:Mine .*{reason}") as caught:
        things["mine"]
    assert str(caught.value).endswith("Reinstall the package that provides it.")
