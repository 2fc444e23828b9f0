"""Tiny models with random weights, written in the files that real ones come in.

The library is loaded by what is called, not by whoever imports this: it takes seconds, and pytest imports every file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

WORDS = ("the", "iron", "man", "heel", "war", "of", "worlds", "2008", "2013", "comedy", "drama")


def bert_folder(folder: Path, *, seed: int = 0) -> Path:
    """A BERT of two layers and 32 dimensions with a tokenizer of `WORDS`; weights large enough to tell words apart."""
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(
            BertConfig(
                vocab_size=len(WORDS) + 1,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=40,
                initializer_range=0.3,
            )
        )
    return _with_tokenizer(model, folder)


def gpt2_folder(folder: Path, *, seed: int = 0) -> Path:
    """A GPT-2 of two layers, 32 dimensions and 40 places, with the same tokenizer."""
    from transformers import GPT2Config, GPT2Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=len(WORDS) + 1,
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=40,
            bos_token_id=None,
            eos_token_id=None,
            initializer_range=0.3,
        )
        model = GPT2Model(config)
    return _with_tokenizer(model, folder)


def vit_folder(folder: Path) -> Path:
    """A vision transformer of two layers and 16 dimensions for pictures of 32 x 32 pixels."""
    from transformers import ViTConfig, ViTModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ViTModel(
            ViTConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                image_size=32,
                patch_size=8,
                initializer_range=0.3,
            )
        )
    model.save_pretrained(folder)
    vit_processor().save_pretrained(folder)
    return folder


def vit_processor() -> ViTImageProcessorPil:
    """The library's own image processor for `vit_folder`."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": 32, "width": 32})


def _with_tokenizer(model: PreTrainedModel, folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model.save_pretrained(folder)
    vocabulary = {word: row for row, word in enumerate(("[UNK]", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    return folder
