"""vLLM servers behind one OpenAI-compatible address."""

from __future__ import annotations

from collections.abc import Sequence

from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.kind import EngineKind
from kmmlu_fast.engines.options import EngineOptions
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.models.model import Model

_APPLIES = "does not go with --engine server: the server applies the adapters; use serve"


def open_server(
    options: EngineOptions, model: Model, adapters: Sequence[Adapter], max_model_len: int, path: str | None
) -> Engine:
    """Connect to the server."""
    from kmmlu_fast.engines.server.engine import ServerEngine

    assert options.base_url is not None  # _server_option_problem refuses that
    return ServerEngine(options.base_url, [model.name, model.path], adapters, concurrency=options.concurrency)


def _server_option_problem(options: EngineOptions) -> str:
    if not options.base_url:
        return "--engine server needs --base-url, such as http://localhost:8000/v1"
    if options.letter_precision != "auto":
        return "--letter-precision does not go with --engine server: the server sets its own"
    from kmmlu_fast.engines.server.client import check_base_url

    try:
        check_base_url(options.base_url)  # a password is refused before the address is saved with the run
    except KmmluError as error:
        return str(error)
    return ""


KIND = EngineKind(
    name="server",
    open=open_server,
    requires=lambda options: ["httpx", "tenacity"],
    libraries=lambda options: ["vllm", "transformers"],
    option_problem=_server_option_problem,
    own_flags={"base_url": "", "concurrency": ""},
    computes_here=False,
    applies_adapters=True,
    refused_adapter_modes={"merge": _APPLIES, "swap": _APPLIES},
)
