#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pages with facts hidden between their paragraphs, which are asked for again far behind.

    make_needles.py FOLDER_OF_PAGES --out FOLDER

A head that is to find what a reader asks for must have seen such places: on plain pages hardly anything
is copied from thousands of tokens before. Writes FOLDER/*.txt, each some pages one after the other. The
wording and the values differ from those that spectx-eval hides and asks for (--needles): no city is
one of its cities, no number has five digits, and neither its sentence nor its "Question:" is used.
"""

import argparse
import pathlib
import random
import string

FILE_CHARACTERS = 120000
SPACING = 300  # characters of text between two insertions, on average
REACH = 27000  # characters back to the oldest fact that is asked for: 7,500 tokens
MOST_ASKED = 2  # times that one fact is asked for

FIRST = """Ada Amir Anna Boris Carla Chen David Elena Emil Farid Grace Hana Henrik Ines Ivan Jonas Kofi
Lena Leo Lucia Maja Marek Mina Nadia Noor Olga Omar Paula Pavel Priya Rosa Samir Sofia Tariq Tomas Uma
Vera Viktor Wanda Yusuf Zara""".split()
LAST = """Abbott Berg Castellan Dvorak Eriksen Farkas Gupta Haddad Ibsen Jansen Kowalski Lindqvist Marsh
Novak Okafor Petrov Quist Rossi Sato Tanaka Urban Varga Weber Xu Yilmaz Zeman Holloway Mbeki""".split()
TOWNS = """Tartu Bergen Porto Ghent Turku Graz Basel Leeds Cork Malaga Split Varna Odense Leipzig Nantes
Parma Tampere Uppsala Gdansk Ostrava Bilbao Trieste Aarhus Dresden Galway""".split()
NOUNS = """falcon river lantern marble copper harbor meadow violin glacier saffron walnut beacon cedar
comet domino ember fjord granite heron island jasper kettle ladder magnet nectar orchid pepper quarry
raven sparrow timber umbrella velvet willow yarrow zephyr anchor button candle drum engine feather""".split()
ADJECTIVES = """amber quiet bright hollow silver rapid gentle crimson frozen golden narrow patient purple
rusty sleepy sudden tidy upper velvet wild yellow clever distant early""".split()
GOODS = "tea wool timber salt glass oranges cement paper coffee barley copper cotton honey rice".split()

# What is known, as sentences with {s}, of whom or what, and {v}; the question; the kinds of {s} and {v}.
FACTS = [
    ("The badge number of {s} is {v}", "What is the badge number of {s}?", "person", "number"),
    ("{s} can be reached at extension {v}", "At which extension can {s} be reached?", "person", "number"),
    ("{s} was born in {v}", "In which year was {s} born?", "person", "year"),
    ("{s} grew up in {v}", "Where did {s} grow up?", "person", "town"),
    ("The favourite word of {s} is {v}", "What is the favourite word of {s}?", "person", "noun"),
    ("The passphrase of {s} is {v}", "What is the passphrase of {s}?", "project", "phrase"),
    ("The serial number of {s} is {v}", "Which serial number does {s} have?", "device", "serial"),
    ("The combination of {s} is {v}", "What opens {s}?", "locker", "combination"),
    ("{s} listens on port {v}", "On which port does {s} listen?", "service", "number"),
    ("{s} is stored under the key {v}", "Under which key is {s} stored?", "project", "hex"),
    ("The review of {s} begins at {v}", "When does the review of {s} begin?", "project", "time"),
    ("The ship {s} carries {v}", "What does the ship {s} carry?", "name", "goods"),
    ("The account of {s} holds {v} crowns", "How much does the account of {s} hold?", "person", "number"),
    ("{s} is led by {v}", "Who leads {s}?", "project", "person"),
    ("{s} = {v}", "What is {s} set to?", "constant", "number"),
    ("{s}: {v}", "Which value belongs to {s}?", "constant", "hex"),
]
FRAMES = [
    "Q: {q}\nA: {a}.",
    "<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}.<|im_end|>",
    "Exercise. {q}\nSolution. {a}.",
    "{q} {a}.",
    "As noted before: {a}.",
    "Reminder: {a}.",
]


def digits(rng, count):
    return str(rng.randrange(10 ** (count - 1), 10**count))


def thing(rng, kind):
    pick = rng.choice
    match kind:
        case "person":
            return f"{pick(FIRST)} {pick(LAST)}"
        case "project":
            return f"the project {pick(ADJECTIVES).title()} {pick(NOUNS).title()}"
        case "device":
            return f"the {pick(ADJECTIVES)} {pick(NOUNS)} sensor"
        case "locker":
            return f"locker {pick(string.ascii_uppercase)}{digits(rng, 2)}"
        case "service":
            return f"the {pick(NOUNS)}-{pick(NOUNS)} service"
        case "name":
            return f"{pick(ADJECTIVES).title()} {pick(NOUNS).title()}"
        case "constant":
            return f"{pick(ADJECTIVES)}_{pick(NOUNS)}".upper()
        case "number":
            return digits(rng, pick((3, 4, 6, 7, 8)))
        case "year":
            return str(rng.randrange(1900, 2010))
        case "town":
            return pick(TOWNS)
        case "noun":
            return pick(NOUNS)
        case "goods":
            return pick(GOODS)
        case "phrase":
            return f"{pick(ADJECTIVES)} {pick(NOUNS)} {pick(NOUNS)}"
        case "serial":
            return f"{pick(string.ascii_uppercase)}{pick(string.ascii_uppercase)}-{digits(rng, 4)}"
        case "combination":
            return "-".join(digits(rng, 2) for _ in range(3))
        case "hex":
            return f"{rng.randrange(1 << 28):07x}"
        case "time":
            return f"{rng.randrange(7, 20)}:{rng.randrange(60):02d}"


class Stream:
    """Text that grows, with the facts that it holds."""

    def __init__(self, rng):
        self.rng, self.parts, self.size = rng, [], 0
        self.facts = []  # [place, sentence, question, times asked]
        self.paragraphs = []  # (place, text)

    def add(self, text):
        self.parts.append(text)
        self.size += len(text) + 2

    def within_reach(self, entries):
        return [entry for entry in entries if self.size - entry[0] < REACH]

    def hide(self):
        sentence, question, subject, value = self.rng.choice(FACTS)
        names = {"s": thing(self.rng, subject), "v": thing(self.rng, value)}
        sentence, question = sentence.format(**names), question.format(**names)
        sentence = sentence[0].upper() + sentence[1:]
        self.facts.append([self.size, sentence, question, 0])
        self.add(sentence + ".")

    def ask(self):
        open_facts = [f for f in self.within_reach(self.facts) if f[3] < MOST_ASKED]
        for fact in self.rng.sample(open_facts, min(len(open_facts), self.rng.choice((1, 1, 2, 4)))):
            fact[3] += 1
            self.add(self.rng.choice(FRAMES).format(q=fact[2], a=fact[1]))

    def repeat(self):
        near = self.within_reach(self.paragraphs)
        if near:
            self.add("To say it again: " + self.rng.choice(near)[1])

    def read(self, page):
        for paragraph in page.strip().split("\n\n"):
            self.add(paragraph)
            if 60 < len(paragraph) < 400 and "\n" not in paragraph:
                self.paragraphs.append((self.size, paragraph))
            if self.rng.random() < len(paragraph) / SPACING:
                what = self.rng.choices((self.hide, self.ask, self.repeat), (5, 5, 1))[0]
                what()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    paths = sorted(args.pages.glob("*.txt"))
    rng.shuffle(paths)
    args.out.mkdir(parents=True, exist_ok=True)
    stream, count = Stream(rng), 0
    for i, path in enumerate(paths):
        stream.read(path.read_text(encoding="utf-8"))
        if stream.size >= FILE_CHARACTERS or i + 1 == len(paths):
            text = "\n\n".join(stream.parts) + "\n"
            (args.out / f"needles_{count:04d}.txt").write_text(text, encoding="utf-8")
            stream, count = Stream(rng), count + 1
    print(f"{count} files of pages with facts")


if __name__ == "__main__":
    main()
