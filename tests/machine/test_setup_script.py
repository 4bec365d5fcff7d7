"""scripts/setup.sh, and the scripts that begin with it, around a Python that only notes what it is asked."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# FAKE_VERSION: its version. FAKE_LACKS: a module that it lacks. FAKE_PIP: what pip does with packages.
# FAKE_ENSUREPIP: what that does.
PYTHON = rf"""#!/bin/bash
version="${{FAKE_VERSION:-3.11}}" packages=.venv/lib/python3.11/site-packages
if [ "$0" = .venv/bin/python ]; then version=$(cat .venv/version); fi
pair="(${{version/./, }})"
case "$*" in
  --version) echo "Python $version.0" ;;
  *"-m venv "*)
    [ "$3" != --clear ] || rm -rf .venv
    mkdir -p .venv/bin $packages
    rm -f .venv/bin/python
    cp "$0" .venv/bin/python
    echo "$version" >.venv/version
    touch $packages/pip ;;
  *"-m ensurepip"*) ${{FAKE_ENSUREPIP:-touch $packages/pip}} ;;
  *"-m pip"*"--version") [ -e $packages/pip ] ;;
  *"-m pip"*install*) echo "$*" >>.venv/pip-log; ${{FAKE_PIP:-true}} ;;
  *sysconfig*) echo $packages ;;
  *sys.version_info*)
    [[ -z "${{FAKE_LACKS:-}}" || "$2" != *"$FAKE_LACKS"* ]] || exit 1
    exec {sys.executable} -IS -c "${{2//sys.version_info\[:2\]/$pair}}" ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Sets of one package each, and no card."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    (folder / "requirements").mkdir()
    for name in ("cpu", "gpu", "demo"):
        (folder / "requirements" / f"{name}.txt").write_text("torch==1\n")
    (tmp_path / "bin").mkdir()
    write_program(tmp_path / "bin" / "nvidia-smi", "#!/bin/bash\nexit 9\n")
    write_program(tmp_path / "a python" / "python", PYTHON)
    return folder


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def environment_of(project: Path, **variables: str) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith(("KMMLU_", "CUDA_"))}
    path = f"{project.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    python = str(project.parent / "a python" / "python")
    return {**given, "PATH": path, "KMMLU_PYTHON": python, "KMMLU_UNHASHED": "1", **variables}


def run(
    project: Path, *words: str, script: str = "setup", **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(project / "scripts" / f"{script}.sh"), *words],
        env=environment_of(project, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def packages_of(project: Path) -> Path:
    return project / ".venv" / "lib" / "python3.11" / "site-packages"


def show_a_card(project: Path) -> None:
    write_program(project.parent / "bin" / "nvidia-smi", "#!/bin/bash\necho 'GPU 0: made'\n")


def test_a_python_whose_path_has_a_space_is_taken(project: Path) -> None:
    done = run(project, "cpu")
    assert (done.returncode, done.stderr) == (0, "") and "setup: ready (cpu" in done.stdout
    assert "torch==1" in (project / ".venv" / "pip-log").read_text()


@pytest.mark.parametrize(
    ("kind", "variables", "allowed"),
    [
        ("cpu", {"KMMLU_PYTHON": "/no/such/python"}, "3.11 to 3.13"),
        ("cpu", {"FAKE_VERSION": "3.14"}, "3.11 to 3.13"),
        ("gpu", {"FAKE_VERSION": "3.13"}, "3.11 to 3.12"),
        ("gpu", {"FAKE_VERSION": "3.10"}, "3.11 to 3.12"),
        ("cpu", {"FAKE_LACKS": "ensurepip"}, "package python3-venv"),
    ],
)
def test_a_python_that_was_named_and_does_not_fit_stops_it(
    project: Path, kind: str, variables: dict[str, str], allowed: str
) -> None:
    done = run(project, kind, **variables)
    assert done.returncode == 2 and not (project / ".venv").exists()
    assert f"the {kind} set needs Python 3.11 to" in done.stderr and allowed in done.stderr
    assert done.stderr.startswith("error: KMMLU_PYTHON=")


@pytest.mark.parametrize(("kind", "version"), [("cpu", "3.13"), ("gpu", "3.12")])
def test_the_newest_python_of_each_set_fits(project: Path, kind: str, version: str) -> None:
    assert run(project, kind, FAKE_VERSION=version).returncode == 0


def test_an_environment_of_another_python_is_not_used(project: Path) -> None:
    assert run(project, "cpu", FAKE_VERSION="3.13").returncode == 0
    for marker in (".kind", ".installed-cpu"):
        (project / ".venv" / marker).unlink()
    done = run(project, "gpu")
    assert (
        done.returncode == 2 and ".venv is Python 3.13.0, and the gpu set needs 3.11 to 3.12" in done.stderr
    )


def test_an_interrupted_set_is_finished_and_not_mixed_with_the_other(project: Path) -> None:
    assert run(project, "gpu", FAKE_PIP="false").returncode == 1
    other = run(project, "cpu")
    assert other.returncode == 2 and "do not mix: rm -rf .venv && bash scripts/setup.sh cpu" in other.stderr
    assert ".venv holds the gpu set, or a part of it" in other.stderr
    done = run(project)
    assert done.returncode == 0 and "setup: ready (gpu" in done.stdout


@pytest.mark.parametrize("marked", [True, False])
def test_without_a_kind_the_set_that_is_there_is_taken(project: Path, marked: bool) -> None:
    """Beside a card that the CPU set was chosen for, demo.sh asks for no kind."""
    assert run(project, "cpu").returncode == 0
    if not marked:  # by an earlier set-up
        (project / ".venv" / ".kind").unlink()
    show_a_card(project)
    done = run(project, "demo")
    assert done.returncode == 0 and "setup: ready (cpu" in done.stdout
    shutil.rmtree(project / ".venv")
    assert "setup: ready (gpu" in run(project, "demo").stdout


def test_an_environment_that_was_not_finished_is_made_anew(project: Path) -> None:
    """Interrupted while it was made, or while pip renewed itself; or by uv venv, which puts no pip there."""
    assert run(project, "cpu", FAKE_PIP="false").returncode == 1
    packages = packages_of(project)
    (packages / "pip").unlink()
    for name in ("~ip", "_virtualenv.py", "pip-26.3.dist-info"):
        (packages / name).touch()
    done = run(project, "cpu")
    assert done.returncode == 0 and "no pip that runs, and no packages" in done.stdout
    assert not (packages / "~ip").exists()
    shutil.rmtree(project / ".venv" / "lib")
    assert run(project, "cpu").returncode == 0


@pytest.mark.parametrize("ensurepip", ["", "false"])
def test_packages_are_not_deleted_for_want_of_a_pip(project: Path, ensurepip: str) -> None:
    assert run(project, "cpu").returncode == 0
    (packages_of(project) / "pip").unlink()
    (packages_of(project) / "torch").mkdir()
    done = run(project, "cpu", "demo", FAKE_ENSUREPIP=ensurepip)
    assert (packages_of(project) / "torch").exists()
    if ensurepip:
        assert done.returncode == 2 and "holds packages and no pip that runs: rm -rf .venv" in done.stderr
    else:
        assert done.returncode == 0 and "ready (cpu" in done.stdout


def test_an_environment_whose_python_is_gone_is_filled_again(project: Path) -> None:
    assert run(project, "cpu").returncode == 0
    (project / ".venv" / "bin" / "python").unlink()
    (project / ".venv" / "bin" / "python").symlink_to("/no/such/python")
    (project / ".venv" / "pip-log").unlink()
    assert run(project, "cpu").returncode == 0
    assert "torch==1" in (project / ".venv" / "pip-log").read_text()


def test_nothing_goes_on_ticking_after_a_signal(project: Path) -> None:
    script = project / "scripts" / "setup.sh"
    assert "read -r -t 8" in script.read_text()
    script.write_text(script.read_text().replace("read -r -t 8", "read -r -t 0.1"))
    process = subprocess.Popen(
        ["bash", str(script), "cpu"],
        env=environment_of(project, FAKE_PIP="/bin/sleep 2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        while "installing torch==1, " not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)  # until nobody holds the other end
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("script", "words", "handed_on"),
    [
        ("demo", [], "demo"),
        ("demo", ["cpu", "--open"], "cpu demo"),
        ("demo", ["gpu", "--limit", "1"], "gpu demo"),
        ("demo", ["--limit", "1"], "demo"),
        ("reproduce", [], "demo"),
        ("reproduce", ["cpu", "out/there"], "cpu demo"),
        ("reproduce", ["--full", "gpu"], "gpu"),
        ("reproduce", ["--full"], ""),
    ],
)
def test_the_kind_is_handed_on_to_set_up(
    project: Path, script: str, words: list[str], handed_on: str
) -> None:
    write_program(project / "scripts" / "setup.sh", '#!/bin/bash\necho "asked: $*."\nexit 3\n')
    done = run(project, *words, script=script)
    assert done.returncode == 3 and done.stdout == f"asked: {handed_on}.\n"


@pytest.mark.parametrize("script", ["demo", "reproduce"])
@pytest.mark.parametrize(
    ("kind", "card", "seen"), [("cpu", True, "-1"), ("cpu", False, ""), ("gpu", True, "")]
)
def test_beside_a_card_the_cpu_set_computes_on_the_cpu(
    project: Path, script: str, kind: str, card: bool, seen: str
) -> None:
    if card:
        show_a_card(project)
    else:
        (project.parent / "bin" / "nvidia-smi").unlink()
        if shutil.which("nvidia-smi"):
            pytest.skip("there is a card")
    make = f"mkdir -p .venv/bin; echo {kind} >.venv/.kind; cp python .venv/bin/python"
    write_program(project / "scripts" / "setup.sh", f"#!/bin/bash\n{make}\n")
    write_program(project / "python", '#!/bin/bash\necho "cards: $CUDA_VISIBLE_DEVICES."\nexit 3\n')
    done = run(project, script=script)
    assert done.returncode == 3 and f"cards: {seen}.\n" in done.stdout
