"""The commands of README.md and README.ko.md, copied from the files: quick ones run, slow ones and the Python
lines run in a fresh clone, GPU ones parse; flags that the text names exist.

A block of commands stands behind ``<!-- test: quick | slow | gpu -->``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kmmlu_fast import cli
from kmmlu_fast.command import help_text
from kmmlu_fast.command.flags import parse_config

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.ko.md")
PAGES = (*READMES, "docs/commands.md")
_BLOCK = re.compile(r"<!-- test: (\w+) -->\n```bash\n(.*?)```", re.DOTALL)


def commands(name: str, kind: str) -> list[str]:
    """The commands of the blocks of one kind, without comments."""
    found = []
    for marked, block in _BLOCK.findall((ROOT / name).read_text(encoding="utf-8")):
        lines = [shlex.join(shlex.split(line, comments=True)) for line in block.splitlines()]
        found += [line for line in lines if line and marked == kind]
    return found


def python_lines(name: str) -> str:
    """The Python block."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


def _unquoted(command: str) -> str:
    return command.replace("'runs/weakness/*'", "runs/weakness/*")


def test_both_languages_have_the_same_commands_pictures_and_headings() -> None:
    english, korean = ((ROOT / name).read_text(encoding="utf-8") for name in READMES)
    for kind, at_least in (("quick", 4), ("slow", 9), ("gpu", 9)):
        assert (
            commands(READMES[0], kind) == commands(READMES[1], kind)
            and len(commands(READMES[0], kind)) >= at_least
        )
    assert re.findall(r"!\[.*?\]\((.*?)\)", english) == re.findall(r"!\[.*?\]\((.*?)\)", korean)
    headings = [[len(level) for level in re.findall(r"^(#+) ", text, re.M)] for text in (english, korean)]
    assert headings[0] == headings[1]
    flags = [set(re.findall(r"--[a-z][a-z-]+", text)) for text in (english, korean)]
    assert flags[0] == flags[1]
    assert python_lines(READMES[0]) == python_lines(READMES[1])
    unmarked = re.findall(r"(?<!-->\n)```bash", english + korean)
    assert unmarked == [], "every bash block says how it is tested"


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    local = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    folder = (ROOT / name).parent
    assert len(local) > 4
    assert [link for link in local if not (folder / link).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_flags_that_the_text_names_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    configs = [help_text.load_config_class(verb) for verb in help_text.CONFIGS]
    fields = {field for config in configs for field in config.model_fields}
    elsewhere = {
        "version",
        "help",
        "config",
        "print",
        "full",
        "gpus",
        "check",
        "verify",
    }  # of the command, install, exams, doctor, reproduce.sh
    ours = re.sub(r"python -m bench\.[^`]*", "", text)  # benchmarks have flags of their own
    named = set(re.findall(r"--([a-z][a-z-]*)", ours)) - elsewhere
    named = {flag.removeprefix("no-") for flag in named}
    assert (
        len(named) > 10
        and {
            flag
            for flag in named
            if flag.replace("-", "_") not in fields and "no_" + flag.replace("-", "_") not in fields
        }
        == set()
    )


@pytest.mark.parametrize("name", PAGES)
def test_commands_in_sentences_parse(name: str) -> None:
    """``kmmlu-fast VERB ...`` between backticks; words that stand for something are taken as they are."""
    text = (ROOT / name).read_text(encoding="utf-8")
    spans = [span.strip("`") for span in re.findall(r"`kmmlu-fast [a-z][^`]*`", text)]
    wanted = [span.split()[1:] for span in spans if span.split()[1] in help_text.CONFIGS]
    assert len(wanted) >= 2
    for verb, *words in wanted:
        given = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
        given = [word.strip("[]") for word in given if word not in ("...", "RUN...", "실행...")]
        assert parse_config(help_text.load_config_class(verb), given, "x"), (verb, given)


@pytest.mark.parametrize("command", sorted({line for name in READMES for line in commands(name, "gpu")}))
def test_gpu_commands_parse(command: str) -> None:
    words = shlex.split(command)
    assert words[0] == "kmmlu-fast"
    if words[1] in help_text.CONFIGS:
        given = [word if not word.startswith("configs/") else str(ROOT / word) for word in words[2:]]
        assert parse_config(help_text.load_config_class(words[1]), given, "x")
    else:
        assert words[1] in ("doctor", "install")


PLANS = [line for line in commands("README.md", "gpu") if "--plan" in line or line == "kmmlu-fast doctor"]


@pytest.mark.parametrize("command", [*commands("README.md", "quick"), *PLANS])
def test_quick_commands_run(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "kmmlu_fast",
            *(str(ROOT / w) if w.startswith("configs/") else w for w in words[1:]),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0 and done.stdout, done.stderr


PLANNED = [
    line
    for line in commands("README.md", "gpu")
    if shlex.split(line)[1] in ("eval", "train") and "--plan" not in line
]


@pytest.mark.parametrize("command", PLANNED)
def test_gpu_commands_plan(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Line by line, for a card with 24 GiB that is not here: base, adapter and questions; no engine."""
    (tmp_path / "out" / "lora").mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 16, "base_model_name_or_path": "skt/A.X-4.0-Light"}
    (tmp_path / "out" / "lora" / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    verb, *words = shlex.split(command)[1:]
    words += ["--plan", "--gpu-memory", "24", *(["--dataset", "sample"] if verb == "eval" else [])]
    assert cli.dispatch_command([verb, *words]) == 0
    out = capsys.readouterr().out
    assert "skt/A.X-4.0-Light" in out and "fits: " in out
    assert verb == "train" or ("lora: asked" in out) == ("--adapter" in words)


def test_enough_gpu_commands_are_planned() -> None:
    assert len(PLANNED) >= 4


@pytest.mark.engine
def test_slow_commands_run_in_a_fresh_clone(tmp_path: Path) -> None:
    """With this environment in place of the one that set-up would make (scripts/demo.sh and
    setup.sh have tests of their own).
    """
    clone = tmp_path / "clone"
    copied = subprocess.run(
        ["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(clone)],
        capture_output=True,
        text=True,
        check=False,
    )
    if copied.returncode:  # not in a repository: the files as they are
        shutil.copytree(
            ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "out", "__pycache__")
        )
    lines = [_unquoted(line) for line in commands("README.md", "slow")]
    wanted = [line for line in lines if line.startswith("kmmlu-fast ")]
    assert len(wanted) == 7 and len(lines) == 9  # scripts/demo.sh and source are left out
    script = (
        "set -eu\nkmmlu-fast() { "
        + shlex.quote(sys.executable)
        + ' -m kmmlu_fast "$@"; }\n'
        + "\n".join([*wanted, f"{shlex.quote(sys.executable)} -c {shlex.quote(python_lines('README.md'))}"])
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(clone)},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert all((clone / name).is_file() for name in ("report.html", "report.xlsx", "demo.html"))
    assert "kmmlu_fast.compare" in done.stdout or "kmmlu_fast compare" in done.stdout
