"""bench.gguf's own arithmetic; the engines are not started."""

from __future__ import annotations

import pytest

from bench import gguf
from kmmlu_fast.core.errors import ConfigError


def test_letters_are_compared_beyond_near_ties() -> None:
    ours = [[-1.0, -3.0, -4.0, -5.0], [-1.0, -1.1, -4.0, -5.0], [-1.0, -2.0, -4.0, -5.0]]
    peers = [[-1.1, -3.0, -4.0, -5.0], [-1.1, -1.0, -4.0, -5.0], [-2.0, -1.0, -4.0, -5.0]]
    assert gguf.compare_letters(ours, peers) == {"same_letters": 1, "changed_beyond_ties": 1}


def test_a_server_is_asked_for() -> None:
    config = gguf.GgufConfig(model="x.gguf")
    with pytest.raises(ConfigError, match="--server-python"), gguf.peer_server(config):
        pass
