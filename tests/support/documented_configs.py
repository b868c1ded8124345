"""What mergekit's README, documentation and examples show, written anew for the zoo's models."""

from tests.support.whole import Whole

# Name, and YAML over the pool that the first line's comment names where it is not `llama`.
_EXAMPLES = {
    "linear": """
models:
  - model: ZOO/llama/a
    parameters: {weight: 1.0}
  - model: ZOO/llama/c
    parameters: {weight: 0.3}
  - model: ZOO/llama/base
    parameters: {weight: 0.5}
merge_method: linear
dtype: float16
""",
    "bio-merge": """
models:
  - model: ZOO/mistral/a
    parameters: {density: 1.0, weight: 0.5}
  - model: ZOO/mistral/b
    parameters: {density: 1.0, weight: 0.5}
merge_method: ties
base_model: ZOO/mistral/base
parameters:
  normalize: false
  int8_mask: true
dtype: float16
""",
    "gradient-slerp": """
slices:
  - sources:
      - model: ZOO/llama/a
        layer_range: [0, 4]
      - model: ZOO/llama/c
        layer_range: [0, 4]
merge_method: slerp
base_model: ZOO/llama/a
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: float16
""",
    "slerp-of-models": """
models:
  - model: ZOO/phi3/base
  - model: ZOO/phi3/a
merge_method: slerp
base_model: ZOO/phi3/base
parameters:
  t: 0.4
""",
    "taller-by-frankenmerge": """
slices:
  - sources:
      - model: ZOO/llama/a
        layer_range: [0, 3]
  - sources:
      - model: ZOO/llama/c
        layer_range: [1, 4]
merge_method: passthrough
dtype: float16
""",
    "self-merge": """
slices:
  - sources:
      - {model: ZOO/mistral/a, layer_range: [0, 3]}
  - sources:
      - {model: ZOO/mistral/a, layer_range: [1, 3]}
  - sources:
      - {model: ZOO/mistral/a, layer_range: [1, 4]}
merge_method: passthrough
dtype: bfloat16
""",
    "self-merge-scaled": """
slices:
  - sources:
      - {model: ZOO/llama/a, layer_range: [0, 2]}
  - sources:
      - model: ZOO/llama/a
        layer_range: [1, 3]
        parameters:
          scale:
            - filter: o_proj
              value: 0.0
            - filter: down_proj
              value: 0.0
            - value: 1.0
  - sources:
      - {model: ZOO/llama/a, layer_range: [2, 4]}
merge_method: passthrough
""",
    "pruned-layers": """
slices:
  - sources:
      - {model: ZOO/phi3/base, layer_range: [0, 1]}
  - sources:
      - {model: ZOO/phi3/base, layer_range: [3, 4]}
merge_method: passthrough
""",
    "ties-with-gradients": """
models:
  - model: ZOO/llama/a
    parameters:
      density: [1, 0.7, 0.1]
      weight: 1.0
  - model: ZOO/llama/b
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1]
  - model: ZOO/llama/c
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: ZOO/llama/base
parameters:
  normalize: true
  int8_mask: true
out_dtype: float16
""",
    "task-arithmetic": """
models:
  - model: ZOO/gemma2/a
    parameters: {weight: 0.6}
  - model: ZOO/gemma2/c
    parameters: {weight: -0.2}
merge_method: task_arithmetic
base_model: ZOO/gemma2/base
parameters: {lambda: 0.9}
dtype: bfloat16
""",
    "dare-ties-all-kept": """
models:
  - model: ZOO/llama/base
  - model: ZOO/llama/a
    parameters: {density: 1.0, weight: 0.4}
  - model: ZOO/llama/c
    parameters: {density: 1.0, weight: 0.3}
merge_method: dare_ties
base_model: ZOO/llama/base
parameters: {int8_mask: true, rescale: false}
dtype: bfloat16
""",
    "dare-linear": """
models:
  - model: ZOO/llama/a
    parameters: {density: 0.53, weight: 0.4}
  - model: ZOO/llama/c
    parameters: {density: 0.53, weight: 0.3}
merge_method: dare_linear
base_model: ZOO/llama/base
""",
    "della": """
models:
  - model: ZOO/llama/a
    parameters: {density: 0.7, weight: 0.5, epsilon: 0.1}
  - model: ZOO/llama/c
    parameters: {density: 0.6, weight: 0.5, epsilon: 0.15}
merge_method: della
base_model: ZOO/llama/base
parameters: {lambda: 1.1}
""",
    "breadcrumbs": """
models:
  - model: ZOO/llama/a
    parameters: {density: 0.9, gamma: 0.01, weight: 0.5}
  - model: ZOO/llama/c
    parameters: {density: 0.9, gamma: 0.01, weight: 0.5}
merge_method: breadcrumbs_ties
base_model: ZOO/llama/base
""",
    "model-stock": """
models:
  - model: ZOO/llama/a
  - model: ZOO/llama/b
  - model: ZOO/llama/c
merge_method: model_stock
base_model: ZOO/llama/base
""",
    "nuslerp": """
models:
  - model: ZOO/llama/a
    parameters: {weight: 0.6}
  - model: ZOO/llama/c
    parameters: {weight: 0.4}
merge_method: nuslerp
""",
    "nuslerp-of-deltas-by-rows": """
models:
  - model: ZOO/llama/a
    parameters: {weight: 0.6}
  - model: ZOO/llama/c
    parameters: {weight: 0.4}
merge_method: nuslerp
base_model: ZOO/llama/base
parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}
""",
    "multislerp": """
models:
  - model: ZOO/phi3/a
    parameters: {weight: 0.5}
  - model: ZOO/phi3/c
    parameters: {weight: 0.3}
  - model: ZOO/phi3/base
    parameters: {weight: 0.2}
merge_method: multislerp
""",
    "karcher": """
models:
  - model: ZOO/phi3/a
  - model: ZOO/phi3/c
merge_method: karcher
parameters: {max_iter: 10, tol: 1e-5}
""",
    "sce": """
models:
  - model: ZOO/llama/a
  - model: ZOO/llama/c
merge_method: sce
base_model: ZOO/llama/base
parameters: {select_topk: 0.5}
""",
    "arcee-fusion": """
models:
  - model: ZOO/llama/base
  - model: ZOO/llama/a
merge_method: arcee_fusion
base_model: ZOO/llama/base
out_dtype: bfloat16
""",
    "nearswap": """
models:
  - model: ZOO/mistral/a
merge_method: nearswap
base_model: ZOO/mistral/base
parameters: {t: 0.001}
dtype: float32
""",
    "ram": """
models:
  - model: ZOO/llama/a
  - model: ZOO/llama/c
merge_method: ram
base_model: ZOO/llama/base
""",
    "ramplus": """
models:
  - model: ZOO/llama/a
  - model: ZOO/llama/c
merge_method: ramplus_tl
base_model: ZOO/llama/base
parameters: {r: 0.1, alpha: 0.2}
""",
    "mixture-of-experts": """
models:
  - model: ZOO/mixtral/a
    parameters: {weight: 0.5}
  - model: ZOO/mixtral/c
    parameters: {weight: 0.5}
merge_method: task_arithmetic
base_model: ZOO/mixtral/base
""",
    "encoder-only": """
models:
  - model: ZOO/bert/a
    parameters: {weight: 0.5}
  - model: ZOO/bert/b
    parameters: {weight: 0.5}
merge_method: linear
base_model: ZOO/bert/a
""",
    "modules": """
modules:
  encoder:
    models:
      - {model: ZOO/t5/a, parameters: {weight: 0.7}}
      - {model: ZOO/t5/c, parameters: {weight: 0.3}}
  decoder:
    slices:
      - sources:
          - {model: ZOO/t5/a, layer_range: [0, 3]}
          - {model: ZOO/t5/c, layer_range: [0, 3]}
    parameters: {weight: 0.5}
  shared:
    models:
      - {model: ZOO/t5/a}
      - {model: ZOO/t5/c}
merge_method: linear
parameters: {weight: 1.0}
dtype: bfloat16
""",
    "one-module": """
modules:
  encoder:
    models:
      - {model: ZOO/whisper/a}
      - {model: ZOO/whisper/c}
merge_method: linear
base_model: ZOO/whisper/a
parameters: {weight: 0.5}
""",
    "tokenizer-source-union": """
models:
  - model: ZOO/words/a
    parameters: {weight: 0.5}
  - model: ZOO/words/b
    parameters: {weight: 0.3}
merge_method: linear
base_model: ZOO/words/base
parameters: {weight: 0.2}
tokenizer_source: union
dtype: float32
""",
    "tokenizer-source-base": """
models:
  - model: ZOO/words/a
    parameters: {weight: 0.5}
  - model: ZOO/words/c
    parameters: {weight: 0.5}
merge_method: task_arithmetic
base_model: ZOO/words/base
tokenizer_source: base
""",
    "tokenizer-of-a-model": """
models:
  - model: ZOO/words/a
    parameters: {density: 0.5, weight: 0.5}
  - model: ZOO/words/c
    parameters: {density: 0.5, weight: 0.5}
merge_method: ties
base_model: ZOO/words/base
tokenizer:
  source: ZOO/words/a
""",
    "prompt-formats-of-two-models": """
models:
  - model: ZOO/words/a
    parameters: {weight: 0.5}
  - model: ZOO/words/b
    parameters: {weight: 0.3}
merge_method: linear
base_model: ZOO/words/base
parameters: {weight: 0.2}
tokenizer:
  source: union
  tokens:
    <|im_start|>:
      source: ZOO/words/a
    <|im_end|>:
      source: ZOO/words/a
      force: true
    <|renamed|>:
      source:
        kind: model_token
        model: ZOO/words/a
        token: <|im_end|>
    <|unused|>:
      source:
        kind: zero
  pad_to_multiple_of: 16
chat_template: chatml
dtype: float32
""",
    "chat-template-by-vote": """
models:
  - model: ZOO/words/base
    parameters: {weight: 1.0}
  - model: ZOO/words/c
    parameters: {weight: 1.0}
merge_method: linear
chat_template: auto
""",
    "chat-template-of-ones-own": """
models:
  - model: ZOO/llama/base
    parameters: {weight: 1.0}
  - model: ZOO/llama/a
    parameters: {weight: 1.0}
merge_method: linear
chat_template: "{% for m in messages %}{{ m['content'] }}{% endfor %}"
""",
    "hub-ids": """
models:
  - model: tiny/a
    parameters: {weight: 0.5, density: 0.5}
  - model: tiny/c
    parameters: {weight: 0.5, density: 0.5}
merge_method: ties
base_model: tiny/base
out_dtype: bfloat16
""",
    "hub-ids-at-a-revision": """
slices:
  - sources:
      - {model: tiny/a@main, layer_range: [0, 2]}
  - sources:
      - {model: tiny/c, layer_range: [2, 4]}
merge_method: passthrough
""",
}
_BY_CHANCE = ("dare-linear", "della")
DOCUMENTED = [
    Whole(name, text.lstrip(), by_chance=name in _BY_CHANCE, loses=name == "one-module")
    for name, text in _EXAMPLES.items()
]
