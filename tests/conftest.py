"""What every test finds: on a machine with a card but the CPU's libraries, the card is hidden, as a user
would hide it; and what several test files would build for themselves, built once a session.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser_cases
import pytest

from kmmlu_fast.command.help_language import choose_help_language
from kmmlu_fast.machine import gpus, packages

# Under nohup this is ignored, and so by every child; the tests are of what a scheduler's signal does.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

if choose_help_language([]) != "en":  # the tests read English help
    os.environ["LC_ALL"] = "C.UTF-8"

if packages.installed_version("torch").endswith("+cpu") and gpus.list_gpus():
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a chat template; nobody writes into it. A file that needs another has its own."""
    from tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("chat") / "base", chat=True)


@pytest.fixture(scope="session")
def lora(model: Path) -> Path:
    """An adapter of it that changes answers."""
    from tiny import make_tiny_adapter

    return make_tiny_adapter(model, model.parent / "lora")


@pytest.fixture(scope="session")
def ten_letter_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose letters A to J are one token each, for exams of up to ten options."""
    from tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("ten") / "base", chat=True, letters="ABCDEFGHIJ")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny products: on a busy machine two threads wait for each other longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, started once a file."""
    yield from browser_cases.started()
