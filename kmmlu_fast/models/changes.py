"""Whether a model's or an adapter's files still are what this command read, and digested, before.

In: a ``Model`` or an ``Adapter``. Out: nothing, or an error in one line. To be asked after an engine has read
the files once more: whatever it answers is recorded under the digest. Knows no engines.
"""

from __future__ import annotations

from pathlib import Path

from kmmlu_fast.core.digests import file_stat_digest
from kmmlu_fast.core.errors import AdapterError, ModelError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.models.adapter_files import CONFIG, WEIGHTS, digest_adapter
from kmmlu_fast.models.demo import demo_model_digest
from kmmlu_fast.models.gguf import gguf_digest
from kmmlu_fast.models.model import Model
from kmmlu_fast.models.model_files import model_content_digest

_AGAIN = "changed since this command read them; run the same command again"
_found_same: dict[tuple[Path, str], str] = {}  # adapters' directory and digest -> the files' states


def has_model_changed(model: Model) -> bool:
    """Whether a local model's files are others now; those of a hub's commit never are. ModelError if they
    cannot be read any more.
    """
    if model.revision is not None:
        return False
    path = Path(model.path)
    if path.is_file():
        return gguf_digest(path) != model.digest
    if model_content_digest(path) == model.digest:
        return False
    is_demo = model.name == "demo" and (path / "complete").is_file()
    return not (is_demo and demo_model_digest(path) == model.digest)


def check_model_unchanged(model: Model) -> None:
    """ModelError if a local model's files are others now. Takes a millisecond if nothing was touched."""
    if has_model_changed(model):
        raise ModelError(f"model {model.path}: its files {_AGAIN}")


def check_adapter_unchanged(adapter: Adapter) -> None:
    """AdapterError if its weights or settings are others now. They are hashed only if they were touched."""
    key = (adapter.path, adapter.digest)
    try:
        state = file_stat_digest(adapter.path / name for name in (WEIGHTS, CONFIG))
        if state is not None and _found_same.get(key) == state:
            return
        is_same = digest_adapter(adapter.path) == adapter.digest
    except OSError as error:
        raise AdapterError(f"--adapter {adapter.path}: cannot be read any more ({error.strerror})") from error
    if not is_same:
        raise AdapterError(f"--adapter {adapter.path}: its files {_AGAIN}")
    if state is not None:
        _found_same[key] = state
