"""SECURITY.md and the audit that CI runs: where the data cannot be reached it says so, and lists licences all
the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--strict"], 1)])
def test_the_audit_says_what_it_could_not_reach(tmp_path: Path, flags: list[str], code: int) -> None:
    """With a Python that makes no environments: pip-audit is not to be had."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\n[ "$2" = venv ] && exit 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "audit.sh"), *flags],
        env={**os.environ, "KMMLU_VENV": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    for name in ("cpu.txt", "dev.txt"):
        assert f"requirements/{name}: not audited" in done.stdout
    licences = done.stdout.partition("licences of what is installed")[2]
    assert "Apache" in licences and "[copyleft]" in licences, "Unsloth's parts are LGPL, and marked"


def test_ci_audits_and_the_policy_says_what_it_must() -> None:
    assert "bash scripts/audit.sh" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    policy = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for heading in ("How to report", "What is trusted", "What is not trusted", "What is not defended"):
        assert f"## {heading}" in policy
    assert "trust-remote-code" in policy and "safetensors" in policy
