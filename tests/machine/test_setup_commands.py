"""Hints name what is here: the script in a clone, the verb after pip install."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.core.errors import InstallError
from kmmlu_fast.machine import extras, setup_commands
from kmmlu_fast.machine.setup_commands import is_clone, setup_command


def test_a_clone_names_its_script() -> None:
    assert is_clone() and setup_command("gpu") == "bash scripts/setup.sh gpu"
    assert setup_command("cpu", replace=True) == "rm -rf .venv && bash scripts/setup.sh cpu"


def test_an_installed_package_names_its_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_commands, "_ROOT", tmp_path)
    assert setup_command("cpu") == "kmmlu-fast install cpu"
    assert "scripts/" not in setup_command("gpu", replace=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InstallError, match=r"kmmlu-fast install gpu \(or cpu\)"):
        extras.require_modules("training", "unsloth")
    with pytest.raises(InstallError, match=r"pip install 'kmmlu-fast\[ray\]'"):
        extras.require_modules("--engine ray", "ray")
