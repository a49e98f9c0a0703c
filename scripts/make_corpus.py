#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The text of documentation packages, for training a head and for measuring it.

    make_corpus.py FOLDER_OF_AN_UNPACKED_PACKAGE... --out CORPUS

Writes CORPUS/train/*.txt, one file a page, and CORPUS/held-out and CORPUS/validation likewise.
English pages only; pages of which more than half the paragraphs were seen before are left out. Of the
pages of at least --long characters, in the order of their SHA-256, the first --held-out are held out
for reports and as many more for choosing between heads.
"""

import argparse
import hashlib
import html.parser
import pathlib
import re

SKIPPED_PARTS = {"translations", "_static", "_sources", "_modules", "images", "Common_Content"}
SKIPPED_PAGES = {"genindex.html", "search.html", "py-modindex.html", "genindex-all.html"}
BLOCKS = set("p div section article li ul ol dl dt dd tr table pre h1 h2 h3 h4 h5 h6 br".split())
HIDDEN = {"script", "style", "nav", "head", "footer"}
HIDDEN_CLASSES = {"headerlink", "docnav", "toc", "sphinxsidebar", "related", "footer", "header"}
VOID = set("br img hr meta link input col wbr area base source".split())
FEWEST_CHARACTERS = 2000


class Page(html.parser.HTMLParser):
    """Collects the text of a page's main part, or of its body where no part is marked as main."""

    def __init__(self, marked):
        super().__init__(convert_charrefs=True)
        self.open = []  # of each open element: its tag, whether it is main, hidden, preformatted
        self.marked = marked
        self.out = []

    def handle_starttag(self, tag, attributes):
        if tag in BLOCKS:
            self.out.append("\n")
        if tag in VOID:
            return
        given = dict(attributes)
        classes = set((given.get("class") or "").split())
        self.open.append(
            (
                tag,
                tag == "main" or given.get("role") == "main",
                tag in HIDDEN or bool(classes & HIDDEN_CLASSES),
                tag == "pre",
            )
        )

    def handle_endtag(self, tag):
        if all(tag != element[0] for element in self.open):
            return
        while self.open.pop()[0] != tag:
            pass
        if tag in BLOCKS:
            self.out.append("\n\n" if tag in ("p", "pre", "table") or tag[0] == "h" else "\n")

    def handle_data(self, data):
        shown = not any(element[2] for element in self.open)
        if shown and (not self.marked or any(element[1] for element in self.open)):
            is_verbatim = any(element[3] for element in self.open)
            self.out.append(data if is_verbatim else re.sub(r"\s+", " ", data))


def text_of(source):
    page = Page('role="main"' in source or "<main" in source)
    page.feed(source)
    lines = [line.rstrip() for line in "".join(page.out).replace("¶", "").split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def is_wanted(path):
    parts = set(path.parts)
    languages = [part for part in path.parts if re.fullmatch(r"[a-z]{2,3}-[A-Z]{2}", part)]
    is_english = all(language == "en-US" for language in languages)
    return is_english and not parts & SKIPPED_PARTS and path.name not in SKIPPED_PAGES


def pages(folders):
    """(name, text) of every page that says something new."""
    seen = set()
    for folder in folders:
        for path in sorted(pathlib.Path(folder).rglob("*.html")):
            relative = path.relative_to(folder)
            if not path.is_file() or not is_wanted(relative):
                continue
            text = text_of(path.read_text(encoding="utf-8", errors="replace"))
            paragraphs = {hash(part) for part in text.split("\n\n") if len(part) > 40}
            is_repeated = len(paragraphs & seen) * 2 > len(paragraphs)
            seen |= paragraphs
            if len(text) >= FEWEST_CHARACTERS and not is_repeated:
                parts = (pathlib.Path(folder).name, *relative.parts[-4:])
                yield re.sub(r"[^\w.-]", "_", "_".join(parts))[: -len(".html")], text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--held-out", type=int, default=12, metavar="N")
    parser.add_argument("--long", type=int, default=48000, metavar="CHARACTERS")
    args = parser.parse_args()
    found = list(pages(args.folders))
    long_ones = [page for page in found if len(page[1]) >= args.long]
    long_ones.sort(key=lambda page: hashlib.sha256(page[1].encode()).hexdigest())
    held_out = {name for name, _ in long_ones[: args.held_out]}
    validation = {name for name, _ in long_ones[args.held_out : 2 * args.held_out]}
    for name, text in found:
        use = "held-out" if name in held_out else "validation" if name in validation else "train"
        folder = args.out / use
        folder.mkdir(parents=True, exist_ok=True)
        (folder / (name + ".txt")).write_text(text, encoding="utf-8")
    size = sum(len(text) for _, text in found)
    kept = f"{len(held_out)} held out, {len(validation)} for validation"
    print(f"{len(found)} pages, {size / 1e6:.1f} million characters, {kept}")


if __name__ == "__main__":
    main()
