"""``train --show-rows N``: the first rows as they will be trained, in a second or two, without a training.

In: a ``TrainConfig``. Out: lines on stdout, the trained tokens in brackets and in colour. Reads the
rows as a training does, but looks for no leaks; loads the tokenizer, not the model.
"""

from __future__ import annotations

from kmmlu_fast.core.notes import log_as_warnings
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.training.chat_setup import prepare_chat
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.conversations import decode_trained_runs
from kmmlu_fast.training.encoded import count_trained_tokens
from kmmlu_fast.training.encoding import encode_training_set
from kmmlu_fast.training.inputs import as_trained_row, read_mixed_rows


def show_training_rows(config: TrainConfig) -> None:
    """Print the first ``config.show_rows`` rows, what is trained on in brackets and in colour."""
    from rich.console import Console
    from rich.text import Text

    rows, _ = read_mixed_rows(config)
    require_modules("showing rows", "transformers")
    from kmmlu_fast.models.model import load_tokenizer, resolve_model

    shown = [as_trained_row(row, config) for row in rows[: config.show_rows]]
    model = resolve_model(config.model, config.revision, config.trust_remote_code)
    tokenizer = load_tokenizer(model)
    chat = prepare_chat(config, model, tokenizer, shown)
    log_as_warnings(chat.warnings)
    data = encode_training_set(config, shown, [], chat.tokenizer)
    console = Console(soft_wrap=True, highlight=False)
    for row in data.rows[: config.show_rows]:
        head = f"{row.question_id}: {len(row.input_ids)} tokens, {count_trained_tokens(row)} trained"
        console.print(Text(head, style="bold"))
        line = Text()
        for text, is_trained in decode_trained_runs(row, tokenizer):
            line.append(f"⟦{text}⟧" if is_trained else text, style="green" if is_trained else "dim")
        console.print(line)
