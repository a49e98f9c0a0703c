# SPDX-License-Identifier: Apache-2.0
"""spectx-train-head: a target and texts in, a retrieval head out."""

import functools
import json
import os
import sys
import time

import numpy as np
import torch

from . import UserError, __version__
from .corpus import held_out_sequences, join, load_corpus
from .curve import draw
from .evaluate import Report, table
from .head import Head, Yarn, check_output, load_head, replace_file, save_head
from .options import check, parser, students_of
from .student import Student
from .target import load_target, load_tokenizer
from .trainer import Schedule, Trainer


def main(arguments=None):
    try:
        run(parser().parse_args(arguments))
    except UserError as error:
        print(f"spectx-train-head: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before or after the training
        print(
            "spectx-train-head: interrupted: the same command with --resume goes on from "
            "HEAD.safetensors.ckpt, if the training had begun",
            file=sys.stderr,
        )
        return 130
    except torch.cuda.OutOfMemoryError:
        print(
            "spectx-train-head: error: the GPU ran out of memory while the target was loaded or "
            "measured: lower the longest of --lengths or --report-lengths",
            file=sys.stderr,
        )
        return 1
    return 0


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(args):
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU")
    if not args.out.endswith(".safetensors"):
        raise UserError("--out must end in .safetensors")
    check_output(args.out)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(args.seed)
    begun = time.monotonic()
    target = load_target(args.target, device, args.random_weights)
    check(args, target)
    settings = students_of(args, target)
    others = other_heads(args, target)
    corpus, held_out = texts(args, target)
    say(f"target {target.name}: {target.num_layers} layers, {device.type}; "
        f"{len(corpus.tokens)} tokens in {len(corpus.names)} texts")
    schedule = Schedule(
        tuple(args.lengths), args.batch_tokens, args.queries_per_sequence, args.steps,
        args.minutes, args.seed,
    )
    students = [Student(s, target, args.seed) for s in settings]
    trainer = Trainer(target, students, corpus, schedule, args.out + ".ckpt", args.compile)
    if args.resume:
        trainer.resume()
    elif os.path.exists(trainer.checkpoint_path):
        say(f"{trainer.checkpoint_path} is of an earlier run, which --resume would go on with; "
            "it will be replaced")
    say(f"ready after {time.monotonic() - begun:.0f} s")
    trainer.run()
    memory = gpu_memory(device)
    if memory is not None:
        say(f"most GPU memory in use while training: {memory / 2**30:.2f} GiB")
    finish(args, target, trainer, others, held_out, memory)


def gpu_memory(device):
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None


def texts(args, target):
    """(training corpus, held-out corpus)."""
    longest = max(args.report_lengths or [int(max(args.lengths) * args.yarn)])
    if args.random_weights:
        noise = np.random.default_rng(args.seed)
        sizes = (4 * max(args.lengths), longest + 1)
        return tuple(
            join([noise.integers(0, target.vocabulary, n)], ["noise"], target.vocabulary)
            for n in sizes
        )
    tokenizer = functools.cache(lambda: load_tokenizer(args.target))
    corpus = load_corpus(args.text, tokenizer, target.vocabulary)
    needed = max(args.lengths)
    if args.held_out:
        held_out = load_corpus(args.held_out, tokenizer, target.vocabulary)
    else:
        needed += longest + 1
    if len(corpus.tokens) < needed:
        raise UserError(
            f"--text has {len(corpus.tokens)} tokens, at least {needed} are needed: "
            "give more text, or shorten --lengths"
        )
    if not args.held_out:
        corpus, held_out = corpus.split_tail(longest + 1)
    held_out_sequences(held_out, longest, 1)  # fails now rather than after the training
    return corpus, held_out


def other_heads(args, target):
    """{name: head} of --also-measure."""
    heads = {}
    for path in args.also_measure:
        shape, weights, known = load_head(path)
        head = Head(shape)
        fits = shape.hidden == target.hidden and target.kv_heads % shape.kv_heads == 0
        try:
            head.load_state_dict(weights)
        except RuntimeError:
            fits = False
        if not fits or max(shape.feature_layers) >= target.num_layers:
            raise UserError(f"{path} is no head for {target.name}: it has {shape}")
        head.reduce = known.get("group_reduce", "max")
        heads[os.path.basename(path)] = head.to(target.device).requires_grad_(False)
    return heads


def finish(args, target, trainer, others, held_out, memory):
    yarn = Yarn(args.yarn, max(args.lengths)) if args.yarn > 1 else None
    heads = {s.settings.name: s.result() for s in trainer.students}
    heads |= others
    for head in heads.values():
        head.yarn = yarn
    reports = []
    for length in args.report_lengths or [int(max(args.lengths) * args.yarn)]:
        rows = min(128, length // 2)
        report = Report(target, heads, args.sinks, args.window, rows)
        sequences = held_out_sequences(held_out, length, args.report_texts)
        reports.append(report.measure(sequences, args.budgets))
        print("\n".join(table(reports[-1])), flush=True)
    base = args.out.removesuffix(".safetensors")
    for student in trainer.students:
        name = student.settings.name
        path = f"{base}.{name}.safetensors" if args.variant else args.out
        facts = metadata(args, target, trainer, student.settings, reports)
        save_head(
            path, student.head.shape, heads[name].state_dict(), facts, yarn, heads[name].reduce
        )
        say(f"wrote {path}")
    names = [student.settings.name for student in trainer.students]
    whole = {"steps": trainer.step, "seconds": round(trainer.seconds, 1), "training_gpu_bytes": memory,
             "report_gpu_bytes": gpu_memory(target.device), "reports": reports, "loss": {"names": names, "history": trainer.history}}
    replace_file(base + ".json", lambda temporary: write_json(temporary, whole))
    if trainer.history:
        draw(base + ".png", trainer.history, names)
    if os.path.exists(trainer.checkpoint_path):
        os.remove(trainer.checkpoint_path)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)


def metadata(args, target, trainer, settings, reports):
    objective = settings.objective
    own = [
        {**report, "rows": [row for row in report["rows"] if row["selection"] == settings.name]}
        for report in reports
    ]
    return {
        "target": target.name,
        "target_sha256": target.sha256,
        "trained_length": max(args.lengths),
        "lengths": list(args.lengths),
        "objective": ",".join(f"{k}:{v:g}" for k, v in objective.terms.items()),
        "objective_options": {
            k: getattr(objective, k)
            for k in ("reduce", "forced", "weight", "temperature", "sinks", "window")
        },
        "seed": args.seed,
        "steps": trainer.step,
        "batch_tokens": args.batch_tokens,
        "queries_per_sequence": args.queries_per_sequence,
        "learning_rate": settings.learning_rate,
        "training_tokens": len(trainer.corpus.tokens),
        "held_out": own,
        "tool": f"spectx-train {__version__}",
    }


if __name__ == "__main__":
    sys.exit(main())
