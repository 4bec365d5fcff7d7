"""The table of docs/performance.md, the simulations' tables of docs/statistics.md and docs/howto/recipes.md,
and the speeds of both READMEs, made from recorded results: ``python -m bench.table``.

In: bench/results/*.json (the newest entry of each benchmark counts; ``--kind`` picks a kind of machine, for
the READMEs it is always two CPU cores). Out: the lines between the two markers in each file, replaced;
``--check`` only says whether they are what the records give. A line stands only where its record does:
nothing is typed by hand. Knows nothing of how anything is measured.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from bench.common import RESULTS, ROOT
from bench.readme_lines import readme_lines
from bench.recipe_tables import render_recipes
from bench.shape_model import SHAPES
from bench.start import ADAPTER
from kmmlu_fast.command.flags import Config, parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import write_bytes_atomically

BEGIN, END = "<!-- python -m bench.table: begin -->", "<!-- python -m bench.table: end -->"
Entry = dict[str, Any]


class TableConfig(Config):
    """python -m bench.table: the table of docs/performance.md from the records."""

    positional: ClassVar[str | None] = "files"

    files: list[str] = Field([], description="result files; default: all of bench/results")
    kind: str = Field(
        "",
        description=(
            "records of machines whose file name holds this, such as avx512-bf16 or h100; default: all"
        ),
    )
    pages: list[Path] = Field(
        [ROOT / "docs" / "performance.md"], description="the pages with the markers for the table"
    )
    statistics: Path = Field(
        ROOT / "docs" / "statistics.md", description="the page with the markers for bench.soundness's tables"
    )
    recipes: Path = Field(
        ROOT / "docs" / "howto" / "recipes.md",
        description="the page with the markers for bench.recipes' tables",
    )
    readmes: list[Path] = Field(
        [ROOT / "README.md", ROOT / "README.ko.md"],
        description="the pages with the markers for the speeds in a few lines; in Korean if named .ko.md",
    )
    check: bool = Field(
        False, description="change nothing; exit code 2 if the tables are not what the records give"
    )


def read_entries(files: list[Path], counts: Callable[[Entry], bool] = lambda entry: True) -> dict[str, Entry]:
    """The newest entry of each benchmark, of those that count; peers by number of exemplars. ConfigError for
    a file that is no record.
    """
    newest: dict[str, Entry] = {}
    for path in files:
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: is no file of results ({error})") from error
        for entry in filter(counts, entries):
            for name in _names(entry):
                before = newest.get(name)
                if before is None or _replaces(entry, before, name):
                    newest[name] = entry
    return newest


def _is_of_two_cores(entry: Entry) -> bool:
    """Whether it was measured where the READMEs' speeds are said to be: "on two CPU cores"."""
    device: Entry = entry["device"]
    return bool(device["kind"] == "cpu" and device["cores"] == 2)


def _replaces(entry: Entry, before: Entry, name: str) -> bool:
    """The newer one; a trial on fewer questions or adapters does not replace a measurement on more."""
    sizes = [_questions(each, name) for each in (entry, before)]
    return (sizes[0], entry["time_utc"]) >= (sizes[1], before["time_utc"])


def _questions(entry: Entry, name: str) -> int:
    """Questions asked, of benchmarks whose quick form is a trial; 0 of others."""
    if entry["bench"] in ("judge", "many_adapters"):
        return int(entry["questions"] * entry["adapters"])
    rounds = entry["rounds"] if entry["bench"] == "peers" else []
    asked = [
        found
        for found in rounds
        if name.removeprefix("peers-next-").removeprefix("peers-").startswith(str(found["num_fewshot"]))
    ]
    return max((row.get("questions", 0) for found in asked for row in found["rows"]), default=0)


def _names(entry: Entry) -> list[str]:
    if entry["bench"] == "peers":
        shape = f"-{entry['model']}" if entry["model"] in SHAPES else ""
        names = [
            f"peers-{_next_alone(found)}{found['num_fewshot']}{shape}"
            for found in entry["rounds"]
            if len(found["rows"]) > 1
        ]
        return [*names, *(["peers-whole"] if entry.get("whole") and not shape else [])]
    if entry["bench"] == "adapters":
        return [f"adapters-{mode}" for mode in {row["mode"] for row in entry["rows"]} - {"base"}]
    if entry["bench"] == "decide":
        return [_decide_name(entry)]
    if entry["bench"] == "many_adapters":
        return [f"many-adapters-{entry['engine']}"]
    return [str(entry["bench"])]


def _next_alone(found: Entry) -> str:
    """A round with tomorrow's lm-eval and without today's does not replace the one with today's."""
    peers = {row["peer"] for row in found["rows"]}
    return "next-" if "lm-eval-vllm-next" in peers and "lm-eval-vllm" not in peers else ""


def _decide_name(entry: Entry) -> str:
    """Public pairs, simulated adapters, or one adapter with an engine."""
    if "exams" in entry:
        return "decide-adapters"
    if "by_order" in entry:
        return "decide-orders"
    return "decide" if "mean_questions" in entry else "decide-engine"


def _peers(shots: int) -> Callable[[Entry], str]:
    def line(entry: Entry) -> str:
        found = next(each for each in entry["rounds"] if each["num_fewshot"] == shots)
        others = [row for row in found["rows"] if row["peer"] != "kmmlu_fast"]
        times = " / ".join(f"{row['times_slower']:.1f}x" for row in others)
        differing = sum(row.get("different") or 0 for row in others)
        same = (
            "the same letters but for near ties"
            if not differing
            else f"{differing} letters differ beyond near ties"
        )
        return f"{times} faster than {' / '.join(row['peer'] for row in others)}; {same}"

    return line


def _peers_next(shots: int) -> Callable[[Entry], str]:
    def line(entry: Entry) -> str:
        found = next(each for each in entry["rounds"] if each["num_fewshot"] == shots)
        ours, *others = found["rows"]
        told = ", ".join(f"{row['times_cpu']:.2f}x the CPU time in {row['peer']}" for row in others)
        return f"{told} ({ours['questions']:,} questions)"

    return line


def _round(entry: Entry) -> str:
    """What a quick round of everything took, and where this checkout takes more than the one before."""
    met = [row["met"] for row in entry["rows"] if row["met"] != "-"]
    told = (
        f"{len(entry['rows'])} figures in {entry['total_sec']:,} s, {met.count('yes')} of {len(met)} aims met"
    )
    both = [row for row in entry["rows"] if row.get("times_before")]
    if not both:
        return told
    cells = ", ".join(f"{row['what']} {row['before']:g} / {row['measured']:g}" for row in both)
    return f"{told}; before / after: {cells}"


def _judge(entry: Entry) -> str:
    """Decisions per minute of each way, and how many times lm-eval's today the first one's are."""
    parts = []
    for exam in dict.fromkeys(row["exam"] for row in entry["rows"]):
        rows = [row for row in entry["rows"] if row["exam"] == exam]
        told = ", ".join(
            f"{row['way']} {row['decisions_per_min']:g}" + (" (computed)" if row["got"] == "computed" else "")
            for row in rows
        )
        times = rows[0]["times_lm_eval"]
        parts.append(f"{exam}: {told}" + (f"; {times:.0f}x lm-eval" if times else ""))
    early = next(iter(entry["verdicts"].values()))
    verdicts = ", ".join(f"{count} {name}" for name, count in early.items() if count)
    return (
        f"{entry['adapters']} adapters, {entry['better']} truly better, {entry['questions']:,} questions:"
        f" {verdicts} within {entry['margin_pp']:g} pp. {'. '.join(parts)}"
    )


def _many(entry: Entry) -> str:
    growth = ", ".join(f"{row['what']} {row['growth']:.2f}" for row in entry["rows"] if row["growth"])
    return (
        f"{entry['adapters']} adapters, {entry['questions']:,} questions, {entry['engine']} engine:"
        f" {entry['adapter_cpu_sec']['first quarter']:.2f} s of CPU each at first,"
        f" {entry['adapter_cpu_sec']['last quarter']:.2f} at last, {entry['mib_per_adapter']:.1f} MiB each;"
        f" growth (1: in proportion): {growth}"
    )


def _whole(entry: Entry) -> str:
    ours, *others = entry["whole"]
    told = " / ".join(f"{row['times_slower']:.1f}x faster than {row['command']}" for row in others)
    return f"{ours['questions']:,} questions in {ours['sec']:.0f} s: {told}"


def _shared(entry: Entry) -> str:
    rows = {row["pass"]: row["times_cpu_sec"] for row in entry["rows"]}
    return "; ".join(f"{name}: {rows[name]:.2f}x once" for name in list(rows)[1::2]) + " (CPU time)"


def _commands(entry: Entry) -> str:
    return "; ".join(
        f"{row['what']} {row['sec']['median']:.1f} s ({row['cpu_sec']['median']:.1f} s of CPU,"
        f" {row['peak_gib']:.2f} GiB)"
        for row in entry["rows"]
    )


def _start(entry: Entry) -> str:
    rows = {(row["tree"], row["what"]): row for row in entry["rows"]}
    first, again = rows["now", "first answers"], rows["now", "shown again"]
    ratio = first.get("cpu_sec_of_before")
    told = f", {ratio:.2f} of the CPU time before" if ratio else ""
    warm, adapter = (rows.get(("now", what)) for what in ("first answers, warm engine", ADAPTER))
    more = f"; of a new adapter of a finished base in {adapter['sec']['median']:.1f} s" if adapter else ""
    if warm:
        sec, cpu_sec = (warm[unit]["median"] for unit in ("sec", "cpu_sec"))
        more += f"; with a warm engine in {sec:.1f} s ({cpu_sec:.1f} CPU seconds of the command)"
    shown = f"a finished run shown again in {again['sec']['median']:.1f} s"
    return f"{first['sec']['median']:.1f} s{told}{more}; {shown}"


def _swap(entry: Entry) -> str:
    rows = [row for row in entry["rows"] if row["mode"] == "swap" and row["state"] != "base"]
    swap, passed = max(row["swap_sec"] for row in rows), max(row["times_base_cpu"] for row in rows)
    return f"{swap:.1f} s a swap at most, a pass {passed:.2f}x the base's CPU time at most"


def _training(entry: Entry) -> str:
    rows = {(row["way"], row["length"], row["batch"]): row for row in entry["rows"]}
    told = []
    for length, batch in sorted({key[1:] for key in rows}):
        mine = rows.get(("train", length, batch)) or rows.get(("unsloth", length, batch))
        if mine is None:
            continue
        for other in ("unsloth", "peft"):
            found = rows.get((other, length, batch))
            if found and found is not mine:
                unit = "cpu_sec" if "cpu_sec" in mine and "cpu_sec" in found else "step_sec"
                ratio = found[unit]["median"] / mine[unit]["median"]
                peaks = f"{mine['peak_gib']:.1f} against {found['peak_gib']:.1f} GiB"
                told.append(f"{batch} x {length}: {ratio:.2f}x {other} ({peaks})")
    return "; ".join(told)


def _throughput(entry: Entry) -> str:
    return f"{entry['share_of_matmul_rate']:.0%}"


def _scale(entry: Entry) -> str:
    two = max(entry["replicas"], key=lambda row: row["replicas"])
    return f"{two['efficiency']:.0%} efficiency, {two['same_letters']:.0%} the same letters"


def _decide(entry: Entry) -> str:
    means = entry["mean_questions"]
    sizes = ", ".join(f"{size} pp {means[size]:,}" for size in ("1-2", "2-5", "5-10", "10-") if size in means)
    told = [f"{entry['runs']} public runs, {entry['questions']:,} questions, by difference: {sizes}"]
    for what, name in (("wrong signs", "wrong_sign_share"), ("nulls decided", "null_decided_share")):
        found = entry["intervals"][name]
        told.append(f"{what} {found['share']:.2%} ({found['low']:.2%} to {found['high']:.2%})")
    return f"{'; '.join(told)}; interval at stopping holds the truth in {entry['coverage_at_stop']:.1%}"


def _decide_engine(entry: Entry) -> str:
    told = (
        f'"{entry["verdict"]}" after {entry["decided_at"]:,} of {entry["questions"]:,} questions,'
        f" {entry['times_sooner']:.1f}x sooner than our full pass"
    )
    peer = entry.get("times_sooner_than_lm_eval")
    return told + (f", {peer:.0f}x sooner than lm-eval's (from its rate)" if peer else "")


def _decide_adapters(entry: Entry) -> str:
    sizes = entry["intervals"]["by margin"]
    told = ", ".join(
        f"{name} pp {row['adaptive']['mean']:,} (uniform {row['uniform']['mean']:,})"
        for name, row in sizes.items()
    )
    parts = [f"adaptive order, by difference: {told}", f"wrong signs {_share(entry['wrong_sign_share'])}"]
    if "null_decided_share" in entry:
        parts.append(f"nulls decided {_share(entry['null_decided_share'])}")
    if "ten_adapters" in entry:
        ten = entry["ten_adapters"]
        parts.append(
            f"ten adapters, nine of them null, in {ten['passes']:.2f} passes, with an error in"
            f" {_share(ten['family_wise_error'])}"
        )
    return "; ".join(parts)


def _share(found: Entry) -> str:
    return f"{found['share']:.2%} ({found['low']:.2%} to {found['high']:.2%})"


def _decide_orders(entry: Entry) -> str:
    told = ", ".join(
        f'{order} "{row["verdict"]}" after {row["decided_at"] or row["asked"]:,} in {row["asking_sec"]:.0f} s'
        for order, row in entry["by_order"].items()
    )
    seeds = entry.get("by_seed", [])
    sooner = sum(_decided(row["adaptive"]) < _decided(row["uniform"]) for row in seeds)
    each = f" (means of {len(seeds)} seeds, adaptive sooner in {sooner})" if len(seeds) > 1 else ""
    return f"{told}, of {entry['questions']:,} questions{each}"


def _decided(row: Entry) -> int:
    return int(row["decided_at"] or row["asked"])


def _soundness(entry: Entry) -> str:
    def cells(part: str) -> list[float]:  # at full size a tenth of the pairs: in docs/statistics.md only
        rows = entry.get(part, {}).values()
        return [share for shares in rows for n, share in shares.items() if int(n) != 35_030]

    claims, covers = cells("type_one"), cells("coverage")
    others, other_covers = [*cells("foreign"), *cells("forms")], cells("foreign_coverage")
    within = "all" if entry.get("ok", entry["type_one_within"]) else "not all"
    foreign = f", {max(others):.1%} in the worst of {len(others)} in other worlds" if others else ""
    beside = (
        f", in other worlds in {min(other_covers):.1%} to {max(other_covers):.1%}" if other_covers else ""
    )
    return (
        f"claims where there is nothing to claim: {max(claims):.1%} in the worst of {len(claims)}"
        f" cells below full size{foreign}, {within} within 5 % and two standard errors; 95 % intervals hold"
        f" the truth in {min(covers):.1%} to {max(covers):.1%}{beside}"
        " ([all of it, full size too](statistics.md))"
    )


LINES: tuple[tuple[str, str, Callable[[Entry], str]], ...] = (
    ("peers-0", "zero-shot, the same questions", _peers(0)),
    ("peers-5", "five-shot, the same questions", _peers(5)),
    ("peers-0-qwen2-0.5b", "zero-shot, random weights in the shape of Qwen2.5-0.5B", _peers(0)),
    ("peers-next-0", "zero-shot, beside an lm-eval with one prefill a question", _peers_next(0)),
    ("peers-next-5", "five-shot, beside an lm-eval with one prefill a question", _peers_next(5)),
    ("peers-whole", "whole commands, from the shell to the result", _whole),
    ("judge", "decisions per minute: is each of ten adapters better than the base?", _judge),
    ("start", "from the command to the first answers", _start),
    ("adapters-swap", "another adapter in the same engine", _swap),
    ("many-adapters-vllm", "many adapters of one base, written into the engine", _many),
    ("many-adapters-fake", "many adapters of one base, an engine that answers at once", _many),
    ("shared", "a question asked several times", _shared),
    ("throughput", "share of the device's matmul rate", _throughput),
    ("scale", "replicas on Ray, a core each", _scale),
    ("training", "QLoRA step, rows x tokens", _training),
    ("commands", "commands without a model", _commands),
    ("decide", "questions until `--until-decided` says which is better", _decide),
    ("decide-engine", "seconds until decided, one adapter", _decide_engine),
    (
        "decide-adapters",
        "questions until adapters of a finished base are decided, simulated",
        _decide_adapters,
    ),
    ("decide-orders", "an adapter beside a finished base, in both orders", _decide_orders),
    ("all", "everything in short, one repetition", _round),
    ("soundness", "errors of what `compare` says, simulated", _soundness),
)


def render(entries: dict[str, Entry]) -> str:
    """The table, with the machine and day of each record."""
    lines = ["| What | Measured | On | Command |", "|---|---|---|---|"]
    for name, what, told in LINES:
        if entry := entries.get(name):
            device = entry["device"]
            kind = device["name"] if device["kind"] == "gpu" else f"{device['name']}, {device['cores']} cores"
            kind += f" ({device['cpu_kind'].partition(':')[0]})" if device.get("cpu_kind") else ""
            if device["kind"] == "cpu" and device.get("load_1min", 0) > 1.5 * device["cores"]:
                kind += f", busy (load {device['load_1min']:.0f})"
            lines.append(
                f"| {what} | {told(entry)} | {kind}, {entry['time_utc'][:10]} | `{entry['command']}` |"
            )
    return "\n".join(lines)


_SOUNDNESS = (
    ("type_one", "Claims made where there is nothing to claim (5 % or less)"),
    ("coverage", "Intervals that hold the true value (95 %)"),
    ("power", "Effects that are found (strength +0.25 with a letter habit mended)"),
    ("foreign", "False claims in worlds that nothing was tuned to (5 % or less)"),
    (
        "foreign_coverage",
        "Intervals that hold the true value in these worlds (95 %; more where little changes)",
    ),
    ("conditional", "Claims made under an assumption that is false there, which the sentence names"),
    ("forms", "False claims of written form, letter habit or the rest (5 % or less)"),
    ("forms_power", "Written form, letter habit and the rest, named where they are the cause"),
)


def render_soundness(entry: Entry) -> str:
    """Tables of shares in %, by sentence or interval and questions, and each world's bounds, for
    docs/statistics.md.
    """
    foreign = ", half in worlds that nothing was tuned to, a quarter in those of written form"
    parts = [
        f"`{entry['command']}`, {entry['time_utc'][:10]}: {entry['simulated']:,} simulated pairs per cell"
        f"{foreign if entry.get('worlds') else ''}, fewer of them at full size; log-probabilities were"
        " stored in half of them. Splits are not given under 200 questions."
    ]
    if entry.get("worlds"):
        parts += [_show_bounds(entry["worlds"]), _show_redrawn(entry["redrawn"])]
    for part, title in _SOUNDNESS:
        if not entry.get(part):  # of a record from before there were these worlds
            continue
        sizes = sorted({int(size) for shares in entry[part].values() for size in shares})
        lines = [f"| | {' | '.join(f'{size:,}' for size in sizes)} |", f"|---{'|---' * len(sizes)}|"]
        for name, shares in entry[part].items():
            cells = [f"{100 * shares[str(size)]:.1f}" if str(size) in shares else "–" for size in sizes]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        parts += [f"{title}:", "\n".join(lines)]
    return "\n\n".join(parts)


def _show_bounds(worlds: Entry) -> str:
    """Each world's false claim and coverage nearest to their bounds."""
    lines = ["| world | worst claim | % (at most) | worst coverage | % (at least) |", "|---|---|---|---|---|"]
    for name, world in worlds.items():
        cells = [f"{name}{'' if world['ok'] else ' (**out of bounds**)'}"]
        for which in ("claim", "coverage"):
            worst = world.get(which)
            if worst is None:
                cells += ["–", "–"]
                continue
            cells.append(f"{worst['name']}, {worst['questions']:,} questions")
            cells.append(f"{100 * worst['share']:.1f} ({100 * worst['bound']:.1f})")
        lines.append(f"| {' | '.join(cells)} |")
    intro = (
        "Bounds: a false claim in at most 5 %, an interval that holds the truth in 93 to 97 %, each with two"
        " standard errors."
    )
    return intro + "\n\n" + "\n".join(lines)


def _show_redrawn(redrawn: Entry) -> str:
    """Cells that were out of bounds at first, and what the last fresh pairs gave."""
    if not redrawn:
        return "No cell was out of bounds."
    cells = "; ".join(
        f"{name}: {cell['share']:.1%} of {cell['pairs']:,}, then {cell['fresh_share']:.1%} of"
        f" {cell['fresh_pairs']:,}"
        for name, cell in redrawn.items()
    )
    return (
        "Cells out of bounds were drawn afresh with three times as many pairs, and if still outside with"
        f" twelve times as many; the last draw counts: {cells}."
    )


def replaced(text: str, table: str) -> str:
    """The file with the lines between the markers replaced. ConfigError where the markers are missing."""
    found = re.search(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", text, re.DOTALL)
    if found is None:
        raise ConfigError(f"the file has no lines {BEGIN} and {END}; put them around the table")
    return f"{text[: found.start()]}{BEGIN}\n{table}\n{END}{text[found.end() :]}"


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(TableConfig, argv, "python -m bench.table")
        files = [Path(name) for name in config.files] or sorted(RESULTS.glob("*.json"))
        entries = read_entries([path for path in files if config.kind in path.name])
        if not entries:
            raise ConfigError(
                f"no recorded results of {config.kind!r} in {RESULTS.name}; measure with --record first"
            )
        made = dict.fromkeys(config.pages, render(entries))
        if "soundness" in entries:
            made[config.statistics] = render_soundness(entries["soundness"])
        if "recipes" in entries:
            made[config.recipes] = render_recipes(entries["recipes"])
        two_cores = read_entries(files, _is_of_two_cores)  # of whatever --kind
        for path in config.readmes if two_cores else ():
            made[path] = readme_lines(two_cores, "ko" if path.name.endswith(".ko.md") else "en")
        for path, lines in made.items():
            text = path.read_text(encoding="utf-8")
            fresh = replaced(text, lines)
            if config.check and fresh != text:
                raise ConfigError(
                    f"{path.name}: the table is not what the records give; run python -m bench.table"
                )
            if fresh != text:
                write_bytes_atomically(path, fresh.encode("utf-8"))
        if config.check:
            return 0
        print(render(entries))
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
