"""The digest of the package's code: any change of what decides prompts or answers changes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.machine import environment


def test_the_codes_digest_changes_with_names_and_contents_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_PACKAGE", tmp_path)
    (tmp_path / "wing").mkdir()
    for name in ("a.py", "wing/b.py", "wing/c.yaml"):
        (tmp_path / name).write_text(name)
    first = environment.code_digest()
    (tmp_path / "wing" / "__pycache__").mkdir()
    (tmp_path / "wing" / "__pycache__" / "b.py").write_text("compiled")
    (tmp_path / "notes.txt").write_text("read by nobody")
    assert environment.code_digest() == first
    digests = {first}
    (tmp_path / "wing" / "c.yaml").write_text("changed")
    digests.add(environment.code_digest())
    (tmp_path / "wing" / "b.py").rename(tmp_path / "wing" / "d.py")
    digests.add(environment.code_digest())
    (tmp_path / "wing" / "d.py").rename(tmp_path / "d.py")
    digests.add(environment.code_digest())
    assert len(digests) == 4
