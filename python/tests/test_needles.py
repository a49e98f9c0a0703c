# SPDX-License-Identifier: Apache-2.0
"""scripts/make_needles.py, which makes a part of the corpus."""

import pathlib
import random
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CITIES = re.findall(
    r'"([A-Z][a-z]+)"',
    (ROOT / "examples/eval/needles.cpp").read_text().split("kCities = {")[1].split("}")[0],
)


def make(tmp_path, seed):
    pages, out = tmp_path / "pages", tmp_path / f"out{seed}"
    pages.mkdir(exist_ok=True)
    rng = random.Random(1)
    for n in range(30):
        words = ("a", "few", "plain", "words", "of", "no", "weight")
        text = "\n\n".join(" ".join(rng.choices(words, k=60)) for _ in range(60))
        (pages / f"{n}.txt").write_text(text)
    arguments = [str(pages), "--out", str(out), "--seed", str(seed)]
    subprocess.run([sys.executable, str(ROOT / "scripts/make_needles.py"), *arguments], check=True)
    return [path.read_text() for path in sorted(out.iterdir())]


def test_every_answer_was_stated_before(tmp_path):
    answers = 0
    for text in make(tmp_path, 0):
        for answer in re.finditer(r"\n(?:A: |As noted before: |Reminder: |Solution\. )(.+)\.\n", text):
            answers += 1
            assert f"\n{answer[1]}.\n" in text[: answer.start()]
    assert answers > 100


def test_nothing_that_the_evaluation_hides_is_in_it(tmp_path):
    text = "\n".join(make(tmp_path, 0))
    assert len(CITIES) == 20 and not [city for city in CITIES if city in text]
    assert "secret code" not in text and "Question:" not in text
    assert not re.search(r"\b\d{5}\b", text)


def test_the_seed_decides(tmp_path):
    one = make(tmp_path, 1)
    assert one == make(tmp_path, 1) and one != make(tmp_path, 2)
