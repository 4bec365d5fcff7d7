"""The documentation: the flag reference is today's, pages exist, the site builds strictly where
its generator is.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmmlu_fast.command import help_text

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("verb", help_text.CONFIGS)
def test_the_reference_is_todays(verb: str) -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert help_text.format_help_markdown(verb).rstrip() in text, "run: bash scripts/docs.sh reference"


@pytest.mark.parametrize("file", sorted((ROOT / "docker").glob("*.Dockerfile")), ids=lambda path: path.name)
def test_the_containers_pass_the_linter(file: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.is_file():
        pytest.skip("needs hadolint (requirements/checks.txt)")
    done = subprocess.run([linter, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "", done.stdout + done.stderr


def test_release_notes_come_from_the_changelog() -> None:
    command = ["bash", str(ROOT / "scripts" / "release.sh"), "--notes"]
    notes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "### For users" in notes and "\n## " not in notes
    assert notes.strip() in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_page_of_the_site_is_there() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = [page for entry in nav for page in ([entry] if isinstance(entry, str) else _pages(entry))]
    assert len(pages) > 10 and [page for page in pages if not (ROOT / "docs" / page).is_file()] == []


def _pages(entry: dict[str, Any]) -> list[str]:
    found = []
    for value in entry.values():
        found += [value] if isinstance(value, str) else [page for part in value for page in _pages(part)]
    return found


@pytest.mark.skipif(
    importlib.util.find_spec("material") is None, reason="needs mkdocs-material (requirements/docs.txt)"
)
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
    for page in (tmp_path / "site").rglob("*.html"):  # nothing is fetched, and search works from disk
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)""", text) == [], page
        assert "iframe-worker.js" in text or page.name == "404.html"
