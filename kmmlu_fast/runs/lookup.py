"""Short names of runs: ``base``, an adapter's name, the end of a fingerprint, the latest; and base runs that
a glob brought along.

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
from kmmlu_fast.runs.run import Run

SHORTEST = 4  # characters of a fingerprint
_OWN = (
    "adapter_digest",
    "adapter_mode",
    "adapter_name",
    "adapter",
)  # what tells an adapter's run from its base's


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished run directory."""

    path: Path
    name: str  # "base", or the adapter's
    fingerprint: str
    asked: str  # what it was asked, and of which model: all but the adapter
    finished_ns: int


def find_finished_runs(folder: Path) -> list[FinishedRun]:
    """The finished runs under ``folder`` and its folders, the latest first."""
    found = []
    for path in [*folder.glob("*/metrics.json"), *folder.glob("*/*/metrics.json")]:
        try:
            config = read_json(path.parent / "config.json")
            adapter, parts = config.get("adapter"), dict(config.get("fingerprint_parts") or {})
            name = str(adapter["name"]) if isinstance(adapter, dict) else "base"
            found.append(
                FinishedRun(
                    path.parent,
                    name,
                    str(config["fingerprint"]),
                    _protocol_key(parts),
                    path.stat().st_mtime_ns,
                )
            )
        except (KmmluError, OSError, ValueError, KeyError, TypeError):
            continue  # not a run of ours, or just being written
    return sorted(found, key=lambda run: -run.finished_ns)


def _protocol_key(parts: dict[str, Any]) -> str:
    return json.dumps(
        {name: value for name, value in parts.items() if name not in _OWN}, sort_keys=True, default=str
    )


def resolve_run_names(arguments: list[str], folder: Path, latest: bool = False) -> list[str]:
    """Arguments as paths. ``latest`` stands for the latest adapter's run behind its base, or
    for the latest two runs alike.
    """
    known: list[FinishedRun] | None = None
    if latest:
        known = find_finished_runs(folder)
        return [
            *_latest_pair(known, folder),
            *[_resolve_run_name(argument, known, folder) for argument in arguments],
        ]
    paths: list[str] = []
    for argument in arguments:
        if "/" in argument or "." in argument or _is_run_path(argument):
            paths.append(argument)
            continue
        known = find_finished_runs(folder) if known is None else known
        paths.append(
            _resolve_run_name(argument, _runs_with_same_protocol(argument, arguments, known), folder)
        )
    return paths


def _is_run_path(argument: str) -> bool:
    """Whether there is such a file or folder; an adapter's folder is no run, though its name may be one's."""
    path = Path(argument)
    return path.exists() and not (path / "adapter_config.json").is_file()


def _runs_with_same_protocol(
    argument: str, arguments: list[str], known: list[FinishedRun]
) -> list[FinishedRun]:
    """For "base" beside an adapter's name: the runs that were asked what the adapter's latest
    run was, where there are any.
    """
    beside = next((run for run in known if run.name in arguments and run.name != argument), None)
    if argument != "base" or beside is None:
        return known
    return [run for run in known if run.asked == beside.asked] or known


def _latest_pair(known: list[FinishedRun], folder: Path) -> list[str]:
    for run in known:
        if run.name == "base":
            continue
        if base := next(
            (other for other in known if other.name == "base" and other.asked == run.asked), None
        ):
            return [str(base.path), str(run.path)]
    raise RunError(
        f"--latest: {folder} holds {len(known)} finished run{'s' if len(known) != 1 else ''}, and no"
        " adapter's beside its base; name the runs, or --runs-dir"
    )


def _resolve_run_name(argument: str, known: list[FinishedRun], folder: Path) -> str:
    if _is_run_path(argument):
        return argument
    by_name = [run for run in known if run.name == argument]
    if by_name:
        others = {run.asked for run in by_name}
        if len(others) > 1:
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
        f"{argument}: does not exist, and is no run of {folder} (names there: {names}); give a run directory"
        " or such a name"
    )


def drop_other_bases(runs: list[Run], base: str | None = None) -> list[Run]:
    """Where a glob brought several base runs of one model: the one that was asked what the
    adapters were, first; the rest left out.
    """
    bases = [run for run in runs if run.kind == "run" and not run.config.get("adapter")]
    adapters = [run for run in runs if run.kind == "run" and run.config.get("adapter")]
    of = {(run.facts.get("model"), run.exam) for run in [*bases, *adapters]}
    if base is not None or len(bases) < 2 or not adapters or len(of) > 1:
        return runs
    asked = [_protocol_key(dict(run.facts)) for run in adapters]
    kept = max(bases, key=lambda run: asked.count(_protocol_key(dict(run.facts))))
    if not asked.count(_protocol_key(dict(kept.facts))):
        return runs
    for run in bases:
        if run is not kept:
            log_note(
                f"left out: {run.source} (another run of the same base, asked otherwise; name it with --base"
                " to compare with it)"
            )
    return [kept, *[run for run in runs if run not in bases]]
