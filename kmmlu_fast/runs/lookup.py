"""Short names of runs (``base``, an adapter's name, the end of a fingerprint, the latest), and superfluous
base runs of a glob.

In: arguments and the folder of run directories. Out: paths that ``loading`` reads. Knows nothing of
statistics.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import KmmluError, RunError
from kmmlu_fast.core.reading import read_json
from kmmlu_fast.runs.published import is_published_argument
from kmmlu_fast.runs.readers.source import split_run_argument
from kmmlu_fast.runs.run import Run

SHORTEST = 4  # characters of a fingerprint
# Fingerprint parts in which an adapter's run differs from its base's.
_ADAPTER_PARTS = ("adapter_digest", "adapter_mode", "adapter_name", "adapter")


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished run directory."""

    path: Path
    name: str  # "base", or the adapter's
    fingerprint: str
    asked: str  # protocol and model, as JSON: all fingerprint parts except the adapter's
    finished_ns: int


def find_finished_runs(folder: Path) -> list[FinishedRun]:
    """The finished runs in ``folder`` and its direct subfolders, the latest first."""
    runs = []
    for path in [*folder.glob("*/metrics.json"), *folder.glob("*/*/metrics.json")]:
        try:
            config = read_json(path.parent / "config.json")
            adapter, parts = config.get("adapter"), dict(config.get("fingerprint_parts") or {})
            name = str(adapter["name"]) if isinstance(adapter, dict) else "base"
            fingerprint, finished_ns = str(config["fingerprint"]), path.stat().st_mtime_ns
            runs.append(FinishedRun(path.parent, name, fingerprint, _protocol_key(parts), finished_ns))
        except (KmmluError, OSError, ValueError, KeyError, TypeError):
            continue  # not one of our runs, or being written right now
    return sorted(runs, key=lambda run: -run.finished_ns)


def _protocol_key(parts: dict[str, Any]) -> str:
    protocol = {name: value for name, value in parts.items() if name not in _ADAPTER_PARTS}
    return json.dumps(protocol, sort_keys=True, default=str)


def resolve_run_names(arguments: list[str], folder: Path, latest: bool = False) -> list[str]:
    """Arguments as paths. ``latest`` puts the latest adapter's run, after its base, in front."""
    if latest:
        known = find_finished_runs(folder)
        resolved = [_resolve_run_name(argument, known, folder) for argument in arguments]
        return [*_latest_pair(known, folder), *resolved]
    finished: list[FinishedRun] | None = None
    paths: list[str] = []
    for argument in arguments:
        if "/" in argument or "." in argument or _is_run_path(argument):
            paths.append(argument)
            continue
        finished = find_finished_runs(folder) if finished is None else finished
        candidates = _runs_with_same_protocol(argument, arguments, finished)
        paths.append(_resolve_run_name(argument, candidates, folder))
    return paths


def _is_run_path(argument: str) -> bool:
    """Whether it needs no looking up: published:NAME, or a file or folder that exists and is not an adapter's
    folder, whose name may also be a run's.
    """
    if is_published_argument(argument):
        return True
    path = Path(split_run_argument(argument)[0])
    return path.exists() and not (path / "adapter_config.json").is_file()


def _runs_with_same_protocol(
    argument: str, arguments: list[str], known: list[FinishedRun]
) -> list[FinishedRun]:
    """For "base" together with an adapter's name: the runs with the protocol of the adapter's latest run, if
    there are any.
    """
    adapter_run = next((run for run in known if run.name in arguments and run.name != argument), None)
    if argument != "base" or adapter_run is None:
        return known
    return [run for run in known if run.asked == adapter_run.asked] or known


def _latest_pair(known: list[FinishedRun], folder: Path) -> list[str]:
    bases = [run for run in known if run.name == "base"]
    for run in known:
        base = next((base for base in bases if base.asked == run.asked), None)
        if run.name != "base" and base is not None:
            return [str(base.path), str(run.path)]
    if not known:
        raise RunError(
            f"--latest: {folder} holds no finished run; run kmmlu-fast eval first, name the runs, or give"
            " --runs-dir"
        )
    raise RunError(
        f"--latest: {folder} holds {len(known)} finished run{'s' if len(known) != 1 else ''}, but no"
        " adapter's run with a base run of the same protocol; name the runs, or give --runs-dir"
    )


def _resolve_run_name(argument: str, known: list[FinishedRun], folder: Path) -> str:
    if _is_run_path(argument):
        return argument
    by_name = [run for run in known if run.name == argument]
    if by_name:
        if len({run.asked for run in by_name}) > 1:
            log_note(
                f"{argument}: {len(by_name)} runs in {folder} have this name; the latest is {by_name[0].path}"
            )
        return str(by_name[0].path)
    by_end = [run for run in known if len(argument) >= SHORTEST and run.fingerprint.endswith(argument)]
    if len(by_end) == 1:
        return str(by_end[0].path)
    if by_end:
        raise RunError(
            f"{argument}: is the end of {len(by_end)} fingerprints in {folder}; give more characters"
        )
    names = ", ".join(dict.fromkeys(run.name for run in known)) or "none"
    raise RunError(
        f"{argument}: does not exist, and is not a run in {folder} (names there: {names}); give a run"
        " directory, one of these names, or published:NAME"
    )


def drop_other_bases(runs: list[Run], base: str | None = None) -> list[Run]:
    """If a glob matched several base runs of one model: the one with the adapters' protocol, first; the other
    base runs are left out.
    """
    bases = [run for run in runs if run.kind == "run" and not run.config.get("adapter")]
    adapters = [run for run in runs if run.kind == "run" and run.config.get("adapter")]
    models = {(run.facts.get("model"), run.exam) for run in [*bases, *adapters]}
    if base is not None or len(bases) < 2 or not adapters or len(models) > 1:
        return runs
    protocols = [_protocol_key(run.facts) for run in adapters]
    kept = max(bases, key=lambda run: protocols.count(_protocol_key(run.facts)))
    if _protocol_key(kept.facts) not in protocols:
        return runs
    for run in bases:
        if run is not kept:
            log_note(
                f"left out: {run.source} (another run of the same base with another protocol; name it with"
                " --base to compare with it)"
            )
    return [kept, *[run for run in runs if run not in bases]]
