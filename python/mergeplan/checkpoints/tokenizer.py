"""Files beside the weights that go into a merge's output, by their names on the hub."""

# What lists a vocabulary, the one first that loaders prefer, and that has most of the tokens.
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "spm_char.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "prophetnet.tokenizer",
    "vocab-src.json",
    "tiktoken.model",
    "*.tiktoken",
    "tekken.json",
)
# What only a folder with a tokenizer has beside it.
BESIDE_VOCABULARIES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "vocab.bpe",
    "bpe.codes",
    "byte_maps.json",
    "dict.txt",
    "emoji.json",
    "entity_vocab.json",
    "normalizer.json",
    "target.spm",
    "target_vocab.json",
    "vocab-tgt.json",
    "word_pronunciation.json",
    "word_shape.json",
)
TOKENIZER_FILES = (
    *VOCABULARIES,
    *BESIDE_VOCABULARIES,
    "chat_template.json",
    "*.jinja",
    "additional_chat_templates/*.jinja",
)
# Also where the config asks for a tokenizer of its own.
SETTINGS_FILES = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
