"""pip's configuration for uv: sources carried over, constraints on the set's own packages left to pip."""

import io
from pathlib import Path

import pytest

from kmmlu_fast.machine.uv_flags import NotForUvError, main, parse_pip_settings, uv_flags

SET = "torch_lib==1.0 \\\n    --hash=sha256:00\nNumPy==2.3.5 --hash=sha256:11\n"
BOTH = ["--index-strategy", "unsafe-best-match"]


def test_an_unconfigured_pip_needs_no_more() -> None:
    assert uv_flags({}, SET) == BOTH


def test_every_source_is_carried_over_and_the_environment_goes_first() -> None:
    lines = [
        ":env:.find-links='/mine'",
        "global.extra-index-url='file:///one https://two/simple'",
        "global.find-links='/wheels'",
        "global.index-url='https://mirror/simple'",
        "global.cert='/etc/certs.pem'",
        "freeze.index-url='https://other/simple'",
        "not a setting",
    ]
    assert uv_flags(parse_pip_settings(lines), SET) == [
        *BOTH,
        *("--find-links", "/mine"),
        *("--index", "file:///one", "--index", "https://two/simple"),
        *("--default-index", "https://mirror/simple"),
    ]
    assert parse_pip_settings(reversed(lines))["find-links"] == "/mine"


@pytest.mark.parametrize(("value", "there"), [("1", True), ("true", True), ("0", False), ("False", False)])
def test_no_index_stays_no_index(value: str, there: bool) -> None:
    assert ("--no-index" in uv_flags({"no-index": value}, SET)) is there


@pytest.mark.parametrize(("line", "refused"), [("Torch.Lib<=2", "torch-lib"), ("other<3", None)])
def test_a_constraint_on_the_sets_own_packages_is_left_to_pip(
    tmp_path: Path, line: str, refused: str | None
) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text(f"# kept here\n{line}\n")
    if refused is None:
        assert uv_flags({"constraint": str(file)}, SET) == BOTH
    else:
        with pytest.raises(NotForUvError, match=refused):
            uv_flags({"constraint": str(file)}, SET)


@pytest.mark.parametrize(
    "settings", [{"proxy": "http://p"}, {"constraint": "/nowhere.txt"}, {"only-binary": ":all:"}]
)
def test_what_uv_could_not_follow_is_left_to_pip(
    settings: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "set.txt"
    file.write_text(SET)
    (key, value), *_ = settings.items()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"global.{key}={value!r}\n"))
    assert main([str(file)]) == 1
    out, err = capsys.readouterr()
    assert not out and value in err + value and err
