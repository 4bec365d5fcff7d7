"""importing: no collection in the block, packages left out of it, and all as it was afterwards."""

import gc
import importlib
import importlib.util
import sys
import types
from pathlib import Path

import pytest

from kmmlu_fast.machine.heavy_imports import (
    DEFERRED,
    UNUSED,
    defer_functions,
    hide_packages,
    note_sources_fast,
    pause_garbage_collection,
)


class Cycle:
    pass


def a_cycle() -> types.SimpleNamespace:
    held = types.SimpleNamespace(gone=False)

    class Watched(Cycle):
        def __del__(self) -> None:
            held.gone = True

    one = Watched()
    one.itself = one  # type: ignore[attr-defined]
    return held


def test_nothing_is_collected_in_the_block_and_everything_after_it() -> None:
    with pause_garbage_collection():
        held = a_cycle()
        assert gc.collect() == 0 and not gc.isenabled() and not held.gone
    assert gc.isenabled()
    gc.collect()
    assert held.gone


@pytest.mark.parametrize("enabled", [True, False])
def test_collection_is_as_it_was_also_after_a_fault(enabled: bool) -> None:
    collect = gc.collect
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError), pause_garbage_collection(), pause_garbage_collection():
            print(1 / 0)
        assert gc.isenabled() is enabled and gc.collect is collect
    finally:
        gc.enable()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "looked_for.py").write_text("found = True\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "looked_for", raising=False)
    return "looked_for"


def test_a_package_left_out_is_not_there_and_comes_back(package: str) -> None:
    with hide_packages([package, "not_installed_at_all"]):
        assert importlib.util.find_spec(package) is None
        with pytest.raises(ImportError):
            importlib.import_module(package)
    assert importlib.import_module(package).found
    assert "not_installed_at_all" not in sys.modules


def test_what_was_imported_before_stays(package: str) -> None:
    module = importlib.import_module(package)
    with hide_packages([package]):
        assert importlib.import_module(package) is module
    assert sys.modules[package] is module


def test_nothing_is_left_out_that_transformers_keeps_an_answer_for() -> None:
    """scipy was once: transformers had asked before the block, and imported what was then not to be found."""
    kept = pytest.importorskip("transformers.utils.import_utils")
    assert hasattr(kept, "is_scipy_available")
    assert UNUSED and not [name for name in UNUSED if hasattr(kept, f"is_{name}_available")]


def test_freezing_is_left_to_the_one_who_asks_for_it() -> None:
    from kmmlu_fast.machine.heavy_imports import freeze_live_objects

    before = gc.get_freeze_count()
    try:
        with pause_garbage_collection():
            gc.freeze()
            assert gc.get_freeze_count() <= before
            freeze_live_objects()
            kept = gc.get_freeze_count()
            assert kept > before
            gc.unfreeze()
            assert gc.get_freeze_count() > (before + kept) / 2  # not 0: some frozen objects die meanwhile
    finally:
        gc.unfreeze()


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose module ``part`` has a function and a constant."""
    folder = tmp_path / "counted"
    folder.mkdir()
    (folder / "__init__.py").write_text("", encoding="utf-8")
    (folder / "part.py").write_text("SIZE = 3\ndef add(a, b=1):\n    return a + b\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("counted", "counted.part"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "counted.part"


def test_a_deferred_function_imports_its_module_when_it_is_called(counted: str) -> None:
    with defer_functions({counted: ("add",), "not_installed_at_all.part": ("f",)}):
        add = importlib.import_module(counted).add
        assert "counted" not in sys.modules  # not even the package
        assert importlib.util.find_spec("counted") is not None
        with pytest.raises(ImportError):
            importlib.import_module("not_installed_at_all.part")
    assert counted not in sys.modules and add.__name__ == "add"
    assert add(2, b=5) == 7
    assert importlib.import_module(counted).add(2) == 3 and sys.modules[counted].__file__


def test_what_else_a_deferred_module_has_is_imported_in_the_block_too(counted: str) -> None:
    with defer_functions({counted: ("add",)}):
        module = importlib.import_module(counted)
        assert not hasattr(module, "__file__") and counted in sys.modules  # asked for by inspect
        assert module.SIZE == 3
        assert sys.modules[counted].SIZE == 3 and sys.modules[counted] is not module
    assert sys.modules[counted].__file__  # the real one stays
    with pytest.raises(AttributeError):
        _ = module.nothing


def test_a_module_imported_before_is_not_deferred(counted: str) -> None:
    real = importlib.import_module(counted)
    with defer_functions({counted: ("add",)}):
        assert importlib.import_module(counted) is real
    assert sys.modules[counted] is real


@pytest.mark.parametrize("name", list(DEFERRED))
def test_deferred_functions_exist(name: str) -> None:
    module = pytest.importorskip(name)
    assert not [function for function in DEFERRED[name] if not callable(getattr(module, function))]


def test_torch_names_the_same_line_of_a_registration_in_the_block() -> None:
    utils = pytest.importorskip("torch._library.utils")
    original = utils.get_source

    def caller(level: int) -> str:
        return str(utils.get_source(level))

    expected = [caller(1), caller(2)]
    line = sys._getframe().f_lineno - 1
    with note_sources_fast():
        assert utils.get_source is not original
        found = [caller(1), caller(2)]
    assert utils.get_source is original
    assert found[0] == expected[0] and expected[1] == f"{__file__}:{line}"
    assert found[1] == f"{__file__}:{line + 4}"
