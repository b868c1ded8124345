"""Cloze tasks in lm-evaluation-harness's format, from documents of several domains.

    python -m tests.tools.cloze_tasks TOKENIZER OUT DOMAIN=FILE.jsonl ... [--items 60] [--seed 0]

An item is some 36 tokens of a document and ten tokens that may go on, all of which begin a word:
the document's own, and nine of about the same frequency in the domain. A choice is one token, so
that the harness scores an item in one forward pass. Items are of the later half of each file's
documents; the beginnings of the earlier ones are written to OUT/texts, to measure losses on texts
that no item is of.
"""

import argparse
import json
import random
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import yaml
from transformers import AutoTokenizer

CONTEXT = 36
CHOICES = 10
# The wrong ones are drawn from so many of the nearest in frequency.
NEAREST = 40


def begins_word(token):
    return len(token) > 2 and token[0] == " " and token[1:].isalpha()


def items_of(documents, others, tokenizer, count, rng):
    """Items from documents, as many from each as may be, in a random order."""
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in documents]
    counted = Counter(t for some in [*ids, *others] for t in some)
    known = {t: tokenizer.decode([t]) for t in counted}
    words = sorted((t for t in known if begins_word(known[t])), key=lambda t: (-counted[t], t))
    rank = {t: i for i, t in enumerate(words)}
    places = []
    for own in ids:
        here = [i for i in range(CONTEXT, len(own)) if own[i] in rank]
        places.append(rng.sample(here, len(here)))

    def items_in(number):
        own = ids[number]
        while places[number]:
            i = places[number].pop()
            if item := item_at(own[i - CONTEXT : i], own[i], words, rank, tokenizer, rng):
                yield {**item, "document": number}

    found = []
    for some in zip_longest(*map(items_in, range(len(ids)))):
        found += [item for item in some if item]
        if len(found) >= count:
            break
    rng.shuffle(found)
    return found[:count]


def item_at(before, right, words, rank, tokenizer, rng):
    """One item, or None where a choice is not one token behind this context."""
    context = tokenizer.decode(before).lstrip("\ufffd")
    start = tokenizer(context, add_special_tokens=False).input_ids
    near = sorted(words, key=lambda t: (abs(rank[t] - rank[right]), t))[1 : NEAREST + 1]
    choices = [right, *rng.sample(near, CHOICES - 1)]
    rng.shuffle(choices)
    shown = [tokenizer.decode([t]) for t in choices]
    for token, text in zip(choices, shown, strict=True):
        if tokenizer(context + text, add_special_tokens=False).input_ids != [*start, token]:
            return None
    return {"context": context, "choices": shown, "answer": choices.index(right)}


def task_of(name, file):
    return {
        "task": f"cloze_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def save(file, lines):
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer")
    parser.add_argument("out", type=Path)
    parser.add_argument("domains", nargs="+", metavar="DOMAIN=FILE.jsonl")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--characters", type=int, default=200, help="of each text for losses")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    (args.out / "texts").mkdir(parents=True, exist_ok=True)
    for domain in args.domains:
        name, _, file = domain.partition("=")
        texts = [json.loads(line)["text"] for line in Path(file).read_text().splitlines()]
        earlier, later = texts[: len(texts) // 2], texts[len(texts) // 2 :]
        save(
            args.out / "texts" / f"{name}.jsonl",
            [{"text": text[: args.characters]} for text in earlier],
        )
        others = [tokenizer(text, add_special_tokens=False).input_ids for text in earlier]
        rng = random.Random(f"{args.seed} {name}")
        items = items_of(later, others, tokenizer, args.items, rng)
        save(args.out / f"{name}.jsonl", items)
        task = task_of(name, (args.out / f"{name}.jsonl").absolute())
        (args.out / f"{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
        print(f"{name}: {len(items)} items of {len({i['document'] for i in items})} documents")


if __name__ == "__main__":
    main()
