"""Data sets on the hub, through ``datasets``: their rows, their configs, and one line for what goes wrong.

In: a hub id with config, split and revision; as one text ``owner/name[:config[:split]][@revision]``. Out:
``(number, row)``. Knows nothing of what the columns mean.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.file_formats import is_row_file
from kmmlu_fast.machine.hub import hub_problem

_HUB_SOURCE = re.compile(
    r"(?P<hub_id>[\w.-]+/[\w.-]+)(?::(?P<config>[^:@/]+))?(?::(?P<split>[^:@/]+))?(?:@(?P<revision>[\w./-]+))?"
)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A split of a data set on the hub."""

    hub_id: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None


def is_hub_id(source: str) -> bool:
    """Whether ``source`` can only be ``owner/name`` on the hub: one slash, no extension, no such path."""
    return (
        not source.startswith((".", "/", "~"))
        and source.count("/") == 1
        and ":" not in source
        and not is_row_file(Path(source))
        and not any(letter in source for letter in "*?[")
        and not source.endswith("/")
        and not Path(source).exists()
    )


def parse_hub_source(source: str) -> HubSource | None:
    """``owner/name[:config[:split]][@revision]``; None if it is not of this form, or a path that exists."""
    match = _HUB_SOURCE.fullmatch(source)
    if match is None or Path(source).exists() or not is_hub_id(match["hub_id"]):
        return None
    return HubSource(**match.groupdict())


def resolve_hub_revision(source: HubSource) -> str | None:
    """The commit that a hub source stands for now, for the record; its own revision if the hub cannot say."""
    if hub_problem():
        return source.revision
    with contextlib.suppress(Exception):  # the hub client raises dozens of kinds; the rows are what counts
        from huggingface_hub import HfApi

        info = HfApi().dataset_info(source.hub_id, revision=source.revision, timeout=5)
        return str(info.sha) if info.sha else source.revision
    return source.revision


def iter_hub_rows(
    hub_id: str, config: str | None, split: str, revision: str | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of one split on the hub, through ``datasets``. If access fails, DataError says what to do."""
    hub_problem()  # before the import of ``datasets``, which reads then whether to go online
    from datasets import load_dataset

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # one warning per retry otherwise
    try:
        rows = load_dataset(hub_id, config, split=split, revision=revision)
    except Exception as error:  # the hub client and ``datasets`` raise dozens of kinds
        raise DataError(explain_hub_error(hub_id, error)) from error
    yield from enumerate(rows, 1)


def list_hub_configs(hub_id: str, revision: str | None = None) -> list[str]:
    """Names of a hub data set's configs."""
    hub_problem()
    from datasets import get_dataset_config_names

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return list(get_dataset_config_names(hub_id, revision=revision))
    except Exception as error:
        raise DataError(explain_hub_error(hub_id, error)) from error


def explain_hub_error(hub_id: str, error: BaseException) -> str:
    """One line for what the hub or ``datasets`` raised: gated, no token, no network, unknown config or
    split."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    kinds = {type(link).__name__ for link in chain}
    responses = [getattr(link, "response", None) for link in chain]
    status = {getattr(response, "status_code", None) for response in responses}
    text = " ".join(map(str, chain))
    page = f"https://huggingface.co/datasets/{hub_id}"
    login = "log in with `hf auth login` (or set HF_TOKEN)"
    if "GatedRepoError" in kinds or "gated" in text.lower() or 403 in status:
        return f"{hub_id}: is gated: accept its terms at {page}, then {login}"
    if 401 in status or "LocalTokenNotFoundError" in kinds:
        return f"{hub_id}: needs a token, or does not exist: see {page}, accept its terms there, then {login}"
    if kinds & {"DatasetNotFoundError", "RepositoryNotFoundError"} and "connection" not in text.lower():
        return f"{hub_id}: the hub has no such data set, or it is private: check the name at {page}"
    if "ValueError" in kinds or "BuilderConfig" in text:
        return f"{hub_id}: {str(error).splitlines()[0]}; see {page} for its configs and splits"
    return (
        f"{hub_id}: the hub cannot be reached and the data set is not in the cache ({type(error).__name__}); "
        "check the network, or give its files by path"
    )
