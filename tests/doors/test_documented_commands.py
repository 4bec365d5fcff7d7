"""Every command line of READMEs, tutorial and how-tos: each is parsed against the real parser, and those that
start no engine are run, on invented runs and rows of the names that the pages use.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from made_runs import predictions, run_directory

from kmmlu_fast import cli
from kmmlu_fast.command import help_text
from kmmlu_fast.command.flags import parse_config

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("README*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/howto/*.md"),
        *ROOT.glob("docs/ko/*.md"),
    )
    if path.name not in ("reference.md", "architecture.md")
)
CONFIGS = {*help_text.CONFIGS, "exams", "install"}
QUICK = ("compare", "report", "plan", "leakage", "help", "--version", "exams")
PLACEHOLDERS = {"...", "RUN...", "실행..."}


def command_lines(page: str) -> list[str]:
    """``kmmlu-fast`` lines of fenced blocks (workflow steps too) and of code spans, without redirections."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [
        line.strip().removeprefix("- run: ")
        for block in re.findall(r"```(?:bash|text|yaml)\n(.*?)```", text, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += re.findall(r"`(kmmlu-fast [^`]*)`", text)
    commands = []
    for line in lines:
        if line.startswith("kmmlu-fast "):
            words = shlex.split(line, comments=True)
            cut = next(
                (place for place, word in enumerate(words) if word in (">", ">>", "|", "&")), len(words)
            )
            commands.append(shlex.join(words[:cut]))
    return list(dict.fromkeys(commands))


LINES = [(page, line) for page in PAGES for line in command_lines(page)]


def _config_class(verb: str) -> type:
    if verb in help_text.CONFIGS:
        return help_text.load_config_class(verb)
    from kmmlu_fast.exams import ExamsConfig
    from kmmlu_fast.install import InstallConfig

    return {"exams": ExamsConfig, "install": InstallConfig}[verb]


@pytest.mark.parametrize(("page", "line"), LINES)
def test_every_line_parses(page: str, line: str) -> None:
    verb, *words = shlex.split(line)[1:]
    assert verb in {*cli.VERBS, "help", "completion", "VERB"} or verb.startswith("-"), line
    if verb not in CONFIGS or "-h" in words or "--help" in words or len(words) == 0:
        return
    given = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
    given = [word.strip("[]") for word in given if word not in PLACEHOLDERS]
    assert parse_config(_config_class(verb), given, "x"), (page, line)


def _is_quick(line: str) -> bool:
    """Whether a line runs whole here: a quick verb, with names that ``folder`` has."""
    words = shlex.split(line)
    unknown = any(re.search(r"\.\.\.|<|\[|[A-Z]{3,}|\bX$|mine\.yaml|[가-힣]", word) for word in words[2:])
    return words[1] in QUICK and len(words) > 2 and not unknown


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs and rows that the pages name."""
    for number, name in enumerate(("base", "lora", "new", "a", "b")):
        skill = 0.5 if name == "base" else 1.2
        adapter = None if name == "base" else tmp_path / "out" / name
        run_directory(
            tmp_path / "runs" / name, name, predictions(number, skill=skill), dataset="none", adapter=adapter
        )
    rows = [{"instruction": f"{n}을(를) 설명하세요.", "output": f"설명 {n}"} for n in ("가", "나")]
    for name in ("mine.jsonl", "data/sft.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


RUNNABLE = sorted({line for _, line in LINES if _is_quick(line)})


@pytest.mark.parametrize("line", RUNNABLE)
def test_what_needs_no_engine_runs(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        name
        for word in shlex.split(line)[1:]
        for name in (sorted(map(str, Path().glob(word))) or [word] if "*" in word else [word])
    ]
    if words[0] == "leakage" and "--dataset" not in words:
        words += ["--dataset", "sample"]  # the data set itself is not at hand
    code = cli.dispatch_command(words)
    out, err = capsys.readouterr()
    assert code == (1 if "--fail-if: failed" in err else 0), err
    assert out


def test_enough_lines_are_run() -> None:
    """The rule above finds what the pages hold; a changed spelling would leave the list empty in silence."""
    assert len(LINES) > 100 and len(RUNNABLE) >= 12
    assert any("--fail-if" in line for line in RUNNABLE) and any("latex" in line for line in RUNNABLE)


def test_every_verb_has_its_exit_codes() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8").split("## Exit codes")[1]
    rows = dict(re.findall(r"^\| (\S+) \|.*\| (.*) \|$", text, re.M))
    assert set(re.findall(r"`(\w[\w-]*)`", rows["2"])) == set(cli.VERBS)
    says_no = {verb for verb in cli.VERBS if re.search(r"return (1\b|.*else 1$)", _source(verb), re.M)}
    assert set(re.findall(r"`(\w[\w-]*)`", rows["1"])) == says_no


def _source(verb: str) -> str:
    work = {"compare": "reporting/run_comparisons"}.get(verb, verb.replace("-", "_"))
    return (ROOT / "kmmlu_fast" / f"{work}.py").read_text(encoding="utf-8")


def test_the_workflow_is_one() -> None:
    """Keys that GitHub knows, and (where it is installed) actionlint finds nothing."""
    text = (ROOT / "docs" / "howto" / "ci-gate.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    workflow = yaml.safe_load(block)
    assert set(workflow) == {"name", True, "jobs"}  # YAML reads "on" as true, and so does GitHub's own parser
    (job,) = workflow["jobs"].values()
    assert set(job) == {"runs-on", "steps"}
    for step in job["steps"]:
        assert set(step) <= {"uses", "run", "with", "if", "name"} and ("uses" in step) != ("run" in step)
        assert "uses" not in step or re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
    if linter := shutil.which("actionlint"):
        done = subprocess.run([linter, "-"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
