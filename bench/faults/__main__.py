"""python -m bench.faults --minutes N: attack every verb with malformed inputs, kill it, fill its disk, and
count what broke.

In: minutes and a seed; ``--scenario`` only kills. Out: what was found, tables, and one JSON line last:
``tried, clean, done, traceback, silently_wrong, overwritten, hang, over_memory, kills, kill_problems``, and
``scenarios`` (``kills, signals, full_disks, missed, problems`` of each). *clean* is one line and exit code 2,
*done* is a command that ended well; all others are faults of this project. Knows nothing of what may be done
about them.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import Field

from bench import common
from bench.faults.attacks import attack
from bench.faults.attacks_own import make_own
from bench.faults.bending import make_good, make_run
from bench.faults.killing import LEAN, Ended, Job, Watcher
from bench.faults.kills import Known, Place, Stop, disturb, scenarios, uninterrupted
from bench.inputs import Attack, Inputs
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError

OVER_BYTES = 1 << 30
KILLS = ("kills", "signals", "full_disks", "missed", "problems")
OUTCOMES = ("clean", "done", "traceback", "silently_wrong", "overwritten", "hang", "over_memory", "other")


class FaultsConfig(common.BenchConfig):
    """python -m bench.faults: malformed inputs, kills and full disks, for a number of minutes."""

    minutes: float = Field(
        3.0, gt=0, description="how long; a third of it goes to kills, all with --scenario"
    )
    seed: int = Field(0, ge=0, description="another seed, other attacks")
    tries: int | None = Field(None, ge=1, description="attacks at most, whatever the minutes say")
    scenario: list[str] = Field(
        [],
        description="kill only these (eval, sample, export, merge, training, ...); default: all but training",
    )
    kills: int | None = Field(
        None, ge=0, description="stop when each scenario was killed so often; default: when the time is up"
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    config = parse_config(FaultsConfig, argv, "python -m bench.faults")
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        place, inputs = prepare(root, training="training" in config.scenario)
        end = time.monotonic() + config.minutes * 60
        counts: Counter[str] = Counter()
        problems: list[str] = []
        imports = [*LEAN, "transformers", "torch"]
        if "training" in config.scenario:
            imports = ["unsloth", *imports]  # which patches those that come after it
        with Watcher(*imports) as watcher:
            place.watcher = watcher
            by_scenario: dict[str, Counter[str]] = {}
            if config.kills != 0:
                kills_end = end - (0 if config.scenario else config.minutes * 40)
                by_scenario = kill(config, place, watcher, kills_end, problems)
            if not config.scenario:
                attack_until(config, inputs, watcher, end, counts, problems)
        for problem in problems:
            common.note(problem)
        result = {
            "tried": sum(counts[name] for name in OUTCOMES),
            **{name: counts[name] for name in OUTCOMES},
            "kills": sum(found["kills"] for found in by_scenario.values()),
            "kill_problems": sum(found["problems"] for found in by_scenario.values()),
        }
        rows = [
            {"scenario": name, **{kind: found[kind] for kind in KILLS}} for name, found in by_scenario.items()
        ]
        common.finish(
            "faults",
            config,
            argv,
            {"seed": config.seed, "minutes": config.minutes, **result, "scenarios": rows},
            [common.table("attacks and kills", [result]), *([common.table("kills", rows)] if rows else [])],
        )
        return 1 if problems else 0
    finally:
        shutil.rmtree(root, ignore_errors=True)


def prepare(root: Path, training: bool = False) -> tuple[Place, Inputs]:
    """Good inputs: a tiny model, an adapter, one file of every kind."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from tiny import make_tiny_adapter, make_tiny_model

    from kmmlu_fast.data import dataset
    from kmmlu_fast.data.subjects import find_subjects

    model = make_tiny_model(root / "model", chat=True)
    adapter = make_tiny_adapter(model, root / "lora", scale=20.0)
    make_good(root / "good")
    make_run(root / "good" / "run", dataset.load_frame("sample", "test", find_subjects(["Law", "Math"])))
    make_own(root / "good", model, adapter)
    place = Place(root, model, adapter, root / "good" / "rows.jsonl" if training else None)
    return place, Inputs(root / "good", root / "work", model, adapter)


def attack_until(
    config: FaultsConfig,
    inputs: Inputs,
    watcher: Watcher,
    end: float,
    counts: Counter[str],
    problems: list[str],
) -> None:
    """Attacks until the time or their number is up. The seed alone decides them."""
    number = 0
    while time.monotonic() < end and (config.tries is None or number < config.tries):
        chance = random.Random(f"{config.seed}:{number}")
        shutil.rmtree(inputs.folder, ignore_errors=True)
        inputs.folder.mkdir(parents=True)
        made = attack(inputs, chance)
        before = digests(inputs.folder)
        cache = inputs.folder.parent / "cache"
        job = Job(
            made.verb,
            made.argv,
            str(inputs.folder),
            environment={"KMMLU_FAST_CACHE": str(cache), **made.environment},
            **made.around,
        )
        outcome, why = judge(made, watcher.run(job), before, inputs.folder)
        counts[outcome] += 1
        if outcome not in ("clean", "done"):
            told = f"{made.verb} {' '.join(made.argv)[:300]!r}: {why}"
            problems.append(f"{config.seed}:{number} {outcome}: {made.name}: {told}")
        number += 1


def digests(folder: Path) -> dict[str, str]:
    """Every ordinary file below a folder, but what an evaluation only notes to be quicker next time."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".asked-"):
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def judge(made: Attack, ended: Ended, before: dict[str, str], folder: Path) -> tuple[str, str]:
    """(outcome, what was said) of one attack."""
    after = digests(folder)
    tail = ended.err[-700:]
    kept = {name: digest for name, digest in before.items() if name.split("/")[0] != made.own}
    if lost := [name for name, digest in kept.items() if after.get(name) != digest]:
        return "overwritten", f"{lost[0]}"
    if ended.code is None:
        return "hang", tail
    if ended.peak_bytes > OVER_BYTES:
        return "over_memory", f"{ended.peak_bytes / 2**30:.2f} GiB"
    if (
        "Traceback" in ended.err
        or "a fault in kmmlu_fast itself" in ended.err
        or ended.code in (70, 98, 99)
        or ended.code < 0
    ):
        return "traceback", tail + _details(ended.err)
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    if ended.code == 2:
        control = any(ord(c) < 32 and c != "\n" and c != "\t" for c in ended.err)
        return (
            ("clean", "")
            if len(lines) == 1 and not control and len(lines[0]) < 4000
            else ("other", f"{len(lines)} lines: {tail}")
        )
    if ended.code in (0, 1):
        return ("silently_wrong", ended.out[-300:]) if made.wrong else ("done", "")
    return "other", f"exit code {ended.code}: {tail}"


def _details(err: str) -> str:
    """The end of the traceback that a fault of the program wrote."""
    path = next((word.rstrip(";") for word in err.split() if "/fault-" in word), None)
    return (
        "\n" + Path(path).read_text(encoding="utf-8", errors="replace")[-900:]
        if path and Path(path.rstrip(";")).is_file()
        else ""
    )


def kill(
    config: FaultsConfig, place: Place, watcher: Watcher, end: float, problems: list[str]
) -> dict[str, Counter[str]]:
    """Kills, signals and full disks, in turn over the scenarios until the time is up or each has been killed
    ``--kills`` times. By scenario: ``kills`` (SIGKILL ended it, at an event or a time), ``signals`` (SIGTERM
    and SIGHUP did), ``full_disks``, ``missed`` (it ended first), ``problems``.
    """
    chosen = [one for one in scenarios(place) if not config.scenario or one.name in config.scenario]
    if unknown := sorted(set(config.scenario) - {one.name for one in chosen}):
        raise ConfigError(
            f"--scenario {unknown[0]}: allowed are {', '.join(s.name for s in scenarios(place))}"
        )
    known = {}
    for one in chosen:
        known[one.name] = uninterrupted(one, place, watcher, times=2)
        common.note(
            f"{one.name}: {known[one.name].events} events, {known[one.name].seconds:.1f} s undisturbed"
        )
    counts: dict[str, Counter[str]] = {one.name: Counter() for one in chosen}
    chance = random.Random(config.seed)
    most = config.kills if config.kills is not None else 10**9
    while time.monotonic() < end and any(found["kills"] < most for found in counts.values()):
        for one in chosen:
            found = counts[one.name]
            if time.monotonic() >= end or found["kills"] >= most:
                continue
            stops = _stops(chance, known[one.name], real=one.real)
            done = disturb(one, place, watcher, known[one.name].outcome, *stops)
            kind = "full_disks" if stops[0].max_file_bytes else "kills"
            kind = "signals" if stops[0].how != signal.SIGKILL else kind
            found[kind] += done.stopped
            found["missed"] += len(stops) - done.stopped
            if sum(found.values()) % 25 == 0:
                common.note(f"{one.name}: {found['kills']} kills")
            if done.seconds:  # how long it takes now, that the machine is as busy as it is
                known[one.name] = known[one.name]._replace(seconds=done.seconds)
            if done.problem:
                found["problems"] += 1
                problems.append(done.problem)
                common.note(done.problem)
    for name, found in counts.items():
        common.note(f"{name}: {', '.join(f'{kind} {count}' for kind, count in sorted(found.items()))}")
    return counts


def _stops(chance: random.Random, known: Known, real: bool) -> list[Stop]:
    """One disturbance: of ten, one is a full disk, two are signals of a scheduler, seven are kills, half of
    them at an event and half at a time, every fifth of them twice. Real training is only killed.
    """
    kind = 9 if real else chance.randrange(10)
    if kind == 0:
        return [Stop(max_file_bytes=chance.choice([500, 3_000, 20_000, 200_000]))]
    if kind <= 2:
        how = chance.choice([signal.SIGTERM, signal.SIGHUP])
        return [Stop(chance.randrange(1, max(1, known.events) + 1), how)]
    return [
        Stop(chance.randrange(1, known.events + 1))
        if known.events and chance.random() < 0.5
        else Stop(after_sec=chance.uniform(0, known.seconds))
        for _ in range(2 if chance.random() < 0.2 else 1)
    ]


def _quiet() -> dict[str, Any]:
    return {
        name: os.environ.setdefault(name, value)
        for name, value in (("HF_HUB_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false"))
    }


if __name__ == "__main__":
    _quiet()
    sys.exit(main())
