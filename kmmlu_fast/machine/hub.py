"""Whether the model hub can be reached, asked once.

In: nothing. Out: why it cannot be, or "". Where it cannot, the hub's client (and ``datasets``, transformers
and vLLM, which ask through it) is told to go by the copies on this computer: by itself it tries a dead
network six times over half a minute for each file. Knows nothing of models or data sets.
"""

from __future__ import annotations

import functools
import os
import time

from kmmlu_fast.core.console import log_note
from kmmlu_fast.machine import packages
from kmmlu_fast.machine.diagnosis import start_probe
from kmmlu_fast.machine.packages import HubStatus

WAIT_SEC = 2.0  # HF_HUB_ETAG_TIMEOUT, the client's own setting, wins


@functools.cache
def hub_problem() -> str:
    """Why the hub cannot be asked, "" where it can. One request a process, none in offline mode."""
    given = os.environ.get("HF_HUB_ETAG_TIMEOUT", "")
    wait_sec = float(given) if given.isdigit() else WAIT_SEC
    # A thread: a name server that is away keeps the caller for longer than any time-out of a socket.
    silent = HubStatus("the hub", f"no answer within {wait_sec:.0f} s", token=False)
    found = start_probe(lambda: packages.check_hub(wait_sec), silent)(time.perf_counter() + wait_sec + 0.5)
    if not found.problem or found.problem.startswith("answered"):
        return ""
    from huggingface_hub import constants

    if not constants.is_offline_mode():
        log_note(f"{found.endpoint}: {found.problem}; only what is on this computer is used")
    os.environ["HF_HUB_OFFLINE"] = "1"  # of the processes that this one starts
    constants.HF_HUB_OFFLINE = True
    return found.problem


def describe_hub_failure(why: str, error: BaseException) -> str:
    """What went wrong, for a sentence: ``why`` the hub cannot be asked, or what its client raised."""
    if why:
        return f"the hub cannot be reached ({why}), and no copy is on this computer"
    return f"the hub cannot be reached or does not have it ({type(error).__name__})"
