# SPDX-License-Identifier: Apache-2.0
"""The command line of spectx-train-head."""

import argparse
import copy
import shlex

from . import UserError
from .head import HeadShape
from .objective import Objective, parse_terms
from .student import StudentSettings


def integers(text):
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no list of whole numbers") from error
    if min(values) < 0:
        raise argparse.ArgumentTypeError(f"{text} has a negative number")
    return values


def described(parser):
    """The parser, its help with every option's kind of value and default."""
    for action in parser._actions:
        if action.type is not None and action.metavar is None:
            lists = action.type is integers
            action.metavar = "N,..." if lists else "N" if action.type.__name__ == "int" else "X"
        default = action.default
        if default is None or default is False or default in ([], argparse.SUPPRESS):
            continue
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        action.help = f"{action.help + '; ' if action.help else ''}default: {default}"
    return parser


def positive(kind):
    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    parse.__name__ = kind.__name__
    return parse


class Parser(argparse.ArgumentParser):
    """Raises instead of printing the usage and exiting with 2."""

    def error(self, message):
        raise UserError(message)


def add_student_options(parser):
    """What a --variant may change."""
    add = parser.add_argument
    add("--objective", default="max", help="TERM[:WEIGHT],... of max, mean, value, maxvalue, peak, "
        "square (of the layers' attention maps), recall, draft")
    add("--reduce", choices=("mean", "max"), default="mean",
        help="how a group's query heads combine in the loss")
    add("--forced", choices=("drop", "keep"), default="drop",
        help="whether the loss counts the sinks and the window, which every selection holds")
    add("--weight", choices=("residual", "even"), default="residual",
        help="count a query by its attention outside sinks and window, or all alike")
    add("--temperature", type=positive(float), default=1.0, help="of the attention learnt from")
    add("--recall-budget", type=positive(int), default=512, help="of the term recall")
    add("--feature-layers", type=integers, help="residual streams after these layers, from 0; "
        "default: EAGLE-3's three")
    add("--features", choices=("on", "off"), default="on",
        help="off: the head sees embeddings alone (fc stays 0), to see what the features give")
    add("--query-heads", type=positive(int), help="of the head; default: the target's")
    add("--head-dim", type=positive(int), help="of the head; default: the target's")
    add("--theta", type=positive(float), help="RoPE base of the head; default: the target's")
    add("--lr", type=positive(float), default=1e-3, help="largest learning rate")
    add("--ema", type=float, default=0.0, help="decay of averaged weights, 0 for none")
    add("--init", metavar="HEAD", help="head to start from")


def parser():
    p = Parser(
        prog="spectx-train-head",
        usage="%(prog)s --target MODEL --text FILE... --out HEAD.safetensors [OPTION...]",
        description="Trains a retrieval head of spectx on a model's own attention. Writes "
        "HEAD.safetensors, HEAD.json with the loss and the report on held-out text, and, where "
        "matplotlib is installed, HEAD.png.",
    )
    add = p.add_argument
    add("--target", required=True, help="model folder of transformers, or GGUF file")
    add("--text", nargs="+", default=[], help="UTF-8 files, folders of them, or spectx-tokenize's")
    add("--held-out", nargs="+", help="texts that the report is measured on; default: the end of --text")
    add("--out", required=True, metavar="HEAD.safetensors", help="the file to write")
    add("--lengths", type=integers, default=(8192,), help="tokens of a sequence, mixed step by step")
    add("--steps", type=int, help="updates; with --minutes, whichever ends first")
    add("--minutes", type=positive(float), help="of training; default: 8 if --steps is not given")
    add("--batch-tokens", type=positive(int), default=16384, help="tokens of an update")
    add("--queries-per-sequence", type=positive(int), default=48,
        help="positions of a sequence whose attention is learnt from")
    add("--sinks", type=int, default=4, help="first rows that every selection holds")
    add("--window", type=int, default=32, help="newest rows that every selection holds")
    add("--yarn", type=positive(float), default=1.0, metavar="FACTOR",
        help="the head is to serve FACTOR times the longest length: its file asks for YaRN")
    add("--budgets", type=integers, default=(256, 512, 1024), help="of the report")
    add("--report-lengths", type=integers, help="default: the longest of --lengths, times --yarn")
    add("--report-texts", type=positive(int), default=8, help="held-out texts of the report, at most")
    add("--variant", action="append", metavar="'NAME OPTIONS'", default=[],
        help="train several heads on the same passes; writes HEAD.NAME.safetensors each")
    add("--also-measure", nargs="+", metavar="HEAD", default=[], help="heads to add to the report")
    add("--resume", action="store_true", help="go on from HEAD.safetensors.ckpt")
    add("--compile", action="store_true", help="let torch.compile fuse the target's layers: half "
        "the time on a GPU, after some seconds; needs a C compiler")
    add("--device", choices=("cuda", "cpu"), help="default: cuda where there is one")
    add("--seed", type=int, default=0, help="of the first weights and of what is sampled")
    add("--random-weights", action="store_true",
        help="--target is a configuration: train on noise, to see time and memory")
    add_student_options(p)
    return described(p)


def shape_of(args, target):
    layers = args.feature_layers or target.default_features
    last = target.num_layers - 2
    if list(layers) != sorted(set(layers)) or layers[-1] > last:
        raise UserError(
            f"--feature-layers {','.join(map(str, layers))} must ascend and end at {last} or before"
        )
    return HeadShape(
        hidden=target.hidden,
        feature_layers=tuple(layers),
        query_heads=args.query_heads or target.heads,
        kv_heads=target.kv_heads,
        head_dim=args.head_dim or target.head_dim,
        rope_theta=args.theta or target.rope_theta,
        rms_norm_eps=target.rms_norm_eps,
    )


def settings_of(name, args, target):
    objective = Objective(
        terms=parse_terms(args.objective),
        reduce=args.reduce,
        forced=args.forced,
        weight=args.weight,
        temperature=args.temperature,
        sinks=args.sinks,
        window=args.window,
        budget=args.recall_budget,
    )
    if not 0 <= args.ema < 1:
        raise UserError(f"--ema {args.ema} is not in [0, 1)")
    return StudentSettings(
        name, objective, shape_of(args, target), args.lr, args.ema, args.init, args.features == "on"
    )


def students_of(args, target):
    """[StudentSettings]: one, or one a --variant."""
    if not args.variant:
        return [settings_of("head", args, target)]
    settings = []
    for text in args.variant:
        name, *words = shlex.split(text) or [""]
        own = Parser(prog=f"--variant {name}", add_help=False, argument_default=argparse.SUPPRESS)
        add_student_options(own)
        for action in own._actions:
            action.default = argparse.SUPPRESS
        settings.append(settings_of(name, own.parse_args(words, copy.copy(args)), target))
    names = [s.name for s in settings]
    if len(set(names)) < len(names) or not all(names):
        raise UserError(f"--variant needs names that differ, got {', '.join(names)}")
    return settings


def check(args, target):
    longest = max(args.lengths)
    reported = max(args.report_lengths or [int(longest * args.yarn)])
    if min(args.lengths) < 16:
        raise UserError("--lengths must be at least 16")
    if max(longest, reported) > target.longest:
        raise UserError(
            f"--lengths {longest} and the report's {reported} must fit the target's {target.longest}"
        )
    if args.batch_tokens < longest:
        raise UserError(f"--batch-tokens {args.batch_tokens} is less than one sequence of {longest}")
    if min(args.sinks, args.window - 1) < 0:
        raise UserError("--sinks must be at least 0 and --window at least 1")
    if args.steps is not None and args.steps < 0:
        raise UserError("--steps must be at least 0")
    if args.steps is None and args.minutes is None:
        args.minutes = 8.0
    if not args.text and not args.random_weights:
        raise UserError("--text is missing")
