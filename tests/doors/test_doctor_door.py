"""The doctor as it is called, beside cards that are not there. No card, hub or installed set is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_card
import pytest

from kmmlu_fast import cli, doctor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_card.build(tmp_path_factory.mktemp("nvml"))


def call(library: Path, *flags: str, python: tuple[str, ...] = (), **variables: str) -> tuple[int, str, str]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent), "HF_HUB_OFFLINE": "1", **variables}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(
        [sys.executable, *python, "-m", "kmmlu_fast.doctor", *flags],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def document(library: Path, **variables: str) -> dict[str, Any]:
    code, out, err = call(library, "--json", python=("-S",), **variables)
    assert code == 0 and err == ""
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize(
    ("gib", "capability", "fitting", "length"),
    [
        ("8", "89", ["4-bit", "nf4"], 1024),
        ("12", "86", ["fp8_per_tensor", "4-bit", "nf4"], 1024),
        ("16", "89", ["fp8_per_channel", "4-bit", "nf4"], 1024),
        ("24", "89", ["bfloat16", "fp8_per_channel", "4-bit", "nf4"], 1024),
        ("48", "89", ["bfloat16", "fp8_per_channel", "4-bit", "nf4"], 1024),
        ("80", "90", ["bfloat16", "fp8_per_channel", "4-bit", "nf4"], 1024),
        ("141", "90", ["bfloat16", "fp8_per_channel", "4-bit", "nf4"], 1024),
    ],
)
def test_by_card(library: Path, gib: str, capability: str, fitting: list[str], length: int) -> None:
    found = document(library, FAKE_GIB=gib, FAKE_CC=capability)
    assert [way["name"] for way in found["ways"] if way["fits"]] == fitting
    assert found["training"]["plan"]["seq_length"] == length and found["training"]["four_bit"]


def test_it_needs_nothing_that_is_installed(library: Path) -> None:
    code, out, _ = call(library, python=("-S", "-E"), FAKE_GIB="24", FAKE_CC="89")
    assert code == 0
    assert "not installed yet: bash scripts/setup.sh gpu" in out and "kmmlu-fast eval --model" in out


def test_an_old_driver_before_set_up(library: Path) -> None:
    code, out, _ = call(library, python=("-S",), FAKE_DRIVER="550.90.07")
    assert code == 2
    assert "driver 550.90.07 is older than CUDA 13 needs (580)" in " ".join(out.split())


def test_it_says_what_is_computed(library: Path) -> None:
    _, out, _ = call(library, FAKE_GIB="24", FAKE_CC="89", FAKE_NAME="NVIDIA GeForce RTX 4090")
    assert "full pass, estimated" in out and "not measured" in out


def test_a_token_is_never_shown(library: Path) -> None:
    for flags in ((), ("--json",)):
        _, out, err = call(library, *flags, HF_TOKEN="made-up-secret")
        assert "made-up-secret" not in out + err and "token" in out


def test_it_imports_nothing_heavy() -> None:
    script = (
        "import sys, kmmlu_fast.doctor\nprint([m for m in ('torch', 'polars', 'pydantic', 'numpy', 'vllm') if"
        " m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_it_is_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch_command(["doctor", "--json", "--model", "demo"]) in (0, 2)
    assert json.loads(capsys.readouterr().out)["model_name"] == "demo"


def test_no_model_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run_doctor_command(["--model", ""]) == 2
    assert "--model needs" in capsys.readouterr().err


@pytest.mark.parametrize(("letter", "code"), [(-0.1, 0), (-9.0, 1)])
def test_verify_shows_the_difference_and_its_exit_code_says_it(
    letter: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kmmlu_fast.evaluation import engine_agreement

    asked = []

    def pretended(config: Any) -> engine_agreement.Verification:
        asked.append((config.model, config.dataset))
        return engine_agreement.compare_engine_scores(
            {"q": (-0.1, -3.0, -4.0, -5.0)}, {"q": (letter, -3.0, -4.0, -5.0)}, 0.01
        )

    monkeypatch.setattr(engine_agreement, "verify_engines", pretended)
    assert doctor.run_doctor_command(["--verify", "demo"]) == code
    assert capsys.readouterr().out.startswith("failed: 0 of 1" if code else "passed: 1 of 1")
    assert doctor.run_doctor_command(["--verify", "demo", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["passed"] is (code == 0)
    assert asked == [("demo", "sample")] * 2


def test_a_card_that_is_not_here(library: Path) -> None:
    """Before set-up too, beside a card that is here."""
    code, out, err = call(
        library, "--gpu-memory", "24", python=("-S",), FAKE_GIB="8", FAKE_CC="75", COLUMNS="80"
    )
    assert (code, err) == (0, "") and "This machine" not in out and "8 GiB (" not in out
    assert "a GPU with 24 GiB" in out and "21.6 GiB  yes" in out
    assert max(len(line) for line in out.splitlines() if not line.startswith(("  kmmlu", "What"))) <= 80
    for flags, fault in (
        (["--gpu-memory", "nan"], "must be a number of GiB"),
        (["--gpu-memory", "-1"], "--gpu-memory"),
        (["--gpu-memory", "24", "--verify", "demo"], "does not go with --verify"),
    ):
        code, out, err = call(library, *flags)
        assert (code, out) == (2, "") and fault in err and err.count("\n") == 1
