"""An Ollama Modelfile for a merged model."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.template import continuation_ids
from lit.model.generation import stop_tokens


def modelfile(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a Modelfile with the chat template and the stop tokens of training."""
    lines = ["FROM ."]
    if tokenizer.chat_template:
        user = {"role": "user", "content": "{{ .Prompt }}"}
        system = {"role": "system", "content": "{{ .System }}"}
        without_system = _render([user], tokenizer)
        with_system = _render([system, user], tokenizer)
        lines.append(
            f'TEMPLATE """{{{{ if .System }}}}{with_system}{{{{ else }}}}{without_system}'
            '{{ end }}"""'
        )
    for token in stop_tokens(model, tokenizer):
        lines.append(f'PARAMETER stop "{tokenizer.convert_ids_to_tokens(token)}"')
    return "\n".join(lines) + "\n"


def _render(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> str:
    text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    # Ollama adds the bos token itself.
    return text.removeprefix(tokenizer.bos_token or "") if _adds_bos(tokenizer) else text


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    return continuation_ids("a", tokenizer)[0] == tokenizer.bos_token_id
