"""Unpacking the demo model."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.models import demo


def test_the_file_is_parsed_once_for_config_weights_and_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = pytest.importorskip("gguf")
    parsed: list[str] = []
    monkeypatch.setattr(gguf, "GGUFReader", lambda path: (parsed.append(str(path)), object())[1])
    with demo._parse_gguf_once():
        assert gguf.GGUFReader("a.gguf") is gguf.GGUFReader(Path("a.gguf"))
    assert parsed == ["a.gguf"]
    gguf.GGUFReader("a.gguf")
    assert len(parsed) == 2  # as before
