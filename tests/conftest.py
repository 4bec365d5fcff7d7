"""What every test finds: on a machine with a card but the CPU's libraries, the card is hidden,
as a user would hide it.
"""

from __future__ import annotations

import os

from kmmlu_fast.core import installed, nvml

if installed.version_of("torch").endswith("+cpu") and nvml.cards():
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
