"""Whether the model hub can be reached, checked once per process.

In: nothing. Out: why it cannot be reached, or "". If it cannot, the hub's client (and ``datasets``,
transformers and vLLM, which use it) is set to offline mode: by itself it retries a dead network six times
over half a minute for each file. Knows nothing of models or data sets.
"""

from __future__ import annotations

import functools
import os
import time

from kmmlu_fast.core.console import log_note

WAIT_SEC = 2.0  # HF_HUB_ETAG_TIMEOUT, the client's own setting, wins


@functools.cache
def hub_problem() -> str:
    """Why the hub cannot be reached, "" if it can. One request per process, none in offline mode."""
    # Here: a dozen modules, for whom the hub need not be asked.
    from kmmlu_fast.machine.diagnosis import start_probe
    from kmmlu_fast.machine.packages import HubStatus, check_hub

    timeout = os.environ.get("HF_HUB_ETAG_TIMEOUT", "")
    wait_sec = float(timeout) if timeout.isdigit() else WAIT_SEC
    # In a thread: a dead name server blocks the caller for longer than any socket time-out.
    silent = HubStatus("the hub", f"no answer within {wait_sec:.0f} s", token=False)
    wait_for_status = start_probe(lambda: check_hub(wait_sec), silent)
    status = wait_for_status(time.perf_counter() + wait_sec + 0.5)
    if not status.problem or status.problem.startswith("answered"):
        return ""
    from huggingface_hub import constants

    if not constants.is_offline_mode():
        log_note(f"{status.endpoint}: {status.problem}; only files on this computer are used")
    os.environ["HF_HUB_OFFLINE"] = "1"  # for processes that this one starts
    constants.HF_HUB_OFFLINE = True
    return status.problem


def describe_hub_failure(why: str, error: BaseException) -> str:
    """A phrase for an error message: ``why`` the hub cannot be reached, or what its client raised."""
    if why:
        return f"the hub cannot be reached ({why}), and no copy is on this computer"
    return f"the hub cannot be reached or does not have it ({type(error).__name__})"
