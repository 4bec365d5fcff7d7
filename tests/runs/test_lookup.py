"""Short names of runs, the latest pair, and base runs that a glob brought along."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from made_runs import predictions, run_directory

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.loading import load_all_runs
from kmmlu_fast.runs.lookup import drop_other_bases, resolve_run_names


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A base asked twice (few questions, all questions) and an adapter asked as the second."""
    folder = tmp_path / "runs"
    frame = predictions(1)
    adapter = tmp_path / "out"
    made = [
        run_directory(folder / "base-few", "base", frame.head(20), data="few"),
        run_directory(folder / "base-all", "base", frame, data="all"),
        run_directory(folder / "lora-all", "lora", predictions(2), adapter=adapter, data="all"),
        run_directory(folder / "weak" / "base-later", "base", frame.head(10), data="later"),
    ]
    for age, path in enumerate(reversed(made)):
        os.utime(path / "metrics.json", (1_000_000 - age, 1_000_000 - age))
    return folder


def test_names_and_latest(runs: Path) -> None:
    assert resolve_run_names(["lora"], runs) == [str(runs / "lora-all")]
    assert resolve_run_names(["base", "lora"], runs) == [
        str(runs / "base-all"),
        str(runs / "lora-all"),
    ]  # not the base finished last
    assert resolve_run_names([], runs, latest=True) == [str(runs / "base-all"), str(runs / "lora-all")]
    assert resolve_run_names([str(runs / "base-few"), "x.csv"], runs) == [str(runs / "base-few"), "x.csv"]


def test_an_adapters_folder_is_no_run(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve_run_names(["lora"], runs) == [str(runs / "lora-all")]


def test_what_is_no_run_says_what_is(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"names there: .*lora"):
        resolve_run_names(["loar"], runs)
    with pytest.raises(RunError, match="is the end of 4 fingerprints"):
        resolve_run_names(["ffffff"], runs)
    with pytest.raises(RunError, match="holds no finished run"):
        resolve_run_names([], tmp_path / "nothing", latest=True)


def test_other_bases_do_not_become_contenders(runs: Path) -> None:
    loaded = load_all_runs([str(path.parent) for path in sorted(runs.glob("*/metrics.json"))])
    assert len(loaded) == 3
    kept = drop_other_bases(loaded)
    assert [Path(run.source).name for run in kept] == ["base-all", "lora-all"]
    assert drop_other_bases(loaded, base="base-few") == loaded
