"""A tiny Llama Guard: a real Llama model with a real tokenizer and chat template, trained here in seconds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

WORDS = ["please", "tell", "me", "how", "to", "bake", "bread", "and", "write", "a", "poem", "about", "spring", "rain"]
HARMS = {"bomb": "S9", "steal": "S2"}
MARKS = ["<|begin_of_text|>", "<|eot_id|>", "<|user|>", "<|assistant|>", "[UNK]"]
AS_TEXT = (
    "{{ '<|begin_of_text|>' }}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<|' + message['role'] + '|> ' }}{{ message['content'] | trim }}"
    "{% endfor %}{{ '<|eot_id|><|assistant|>' }}"
)
AS_BLOCKS = AS_TEXT.replace("message['content'] | trim", "message['content'][0]['text'] | trim")


def tokenizer(template: str = AS_TEXT):
    """One token per word; newlines are tokens, as in Llama Guard 3."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*HARMS.values(), *HARMS, *sorted(set(WORDS)), "Please", "answer."]
    vocabulary = [*MARKS, "\n\n", "\n", "safe", "unsafe", *words]
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split(Regex("\n+"), "isolated")]
    )
    words.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=MARKS[0], eos_token=MARKS[1], pad_token=MARKS[1], unk_token="[UNK]",
        additional_special_tokens=MARKS[2:4], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = template
    return fast


def lesson(rng: random.Random, fast) -> tuple[list[int], list[int]]:
    """Prompt and answer ids; the answer depends on the last turn alone."""
    words = rng.choices(WORDS, k=rng.randint(1, 24))
    codes = []
    if rng.random() < 0.5:
        word, code = rng.choice(list(HARMS.items()))
        words.insert(rng.randrange(len(words) + 1), word)
        codes = [code]
    turns = [{"role": "user", "content": " ".join(words)}]
    if rng.random() < 0.5:
        turns = [{"role": "user", "content": "Please answer."}, {"role": "assistant", "content": " ".join(words)}]
    prompt = fast.apply_chat_template(turns, tokenize=False)
    answer = "\n\nunsafe\n" + codes[0] if codes else "\n\nsafe"
    return fast.encode(prompt, add_special_tokens=False), fast.encode(answer + "<|eot_id|>", add_special_tokens=False)


def train(fast):
    """The model and its last loss (nats per token)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)  # where other tests use the cores, threads wait for each other: four times the work
    torch.manual_seed(7)
    rng = random.Random(7)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(180):
        batch = [lesson(rng, fast) for _ in range(32)]
        width = max(len(prompt) + len(answer) for prompt, answer in batch)
        ids = torch.ones(len(batch), width, dtype=torch.long)
        labels = torch.full((len(batch), width), -100)
        for row, (prompt, answer) in enumerate(batch):
            both = torch.tensor(prompt + answer)
            ids[row, : len(both)] = both
            labels[row, len(prompt) : len(both)] = both[len(prompt) :]
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.005:
            break
    return model.eval(), loss.item()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A folder as `save_pretrained` leaves it."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("models") / "tiny-llama-guard"
    fast = tokenizer()
    model, loss = train(fast)
    assert loss < 0.05, "the tiny model did not learn; its answers would prove nothing"
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
