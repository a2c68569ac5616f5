"""Language detection: the false-positive rate on short English reviews, and unusual inputs."""

from __future__ import annotations

import re
import threading

import pytest

from likewise.demo.data import reviews
from likewise.pipeline import DetectLanguage, Opening

# Some of the "English" reviews are Spanish, Portuguese or French: an English text does not contain two of these words.
FOREIGN = re.compile(
    r"\b(de|del|la|las|los|el|en|es|un|una|que|más|por|para|pero|su|uno|lo|o|os|um|uma|é|e|se|ao|sua|seu|"
    r"como|com|este|pour|le|merci|qui|dès|filme|sem|y)\b"
)


@pytest.fixture(scope="module")
def step() -> DetectLanguage:
    return opened()


def opened(**options: float) -> DetectLanguage:
    step = DetectLanguage(**options)  # type: ignore[arg-type]
    step.open(Opening(resolve=lambda _: pytest.fail("language detection must not open references"), pipeline_uri=""))
    return step


def detect(step: DetectLanguage, *texts: str) -> list[str]:
    return list(step.prepare({"text": texts})["language"])


def test_false_positives_on_short_english_reviews_are_rare(step: DetectLanguage) -> None:
    texts = [review.text for review in reviews()]
    flagged = [text for text, language in zip(texts, detect(step, *texts), strict=True) if language != "en"]
    false = [text for text in flagged if len(FOREIGN.findall(text.lower())) < 2]
    assert len(flagged) - len(false) >= 40, "the foreign reviews must be detected"
    assert len(false) / len(texts) < 0.002, false


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("This is the best movie we saw.", "en"),
        ("What a movie!", "en"),
        ("WHAT A MOVIE!", "en"),
        ("Das ist der beste Film, den wir je gesehen haben.", "de"),
        ("Ce film est magnifique,\nje l'ai adoré.", "fr"),
        ("这部电影非常好看", "zh"),
        ("", "en"),
        ("\n", "en"),
        ("😀", "en"),
        ("\x00", "en"),
        ("What a long movie! " * 50_000, "en"),
    ],
)
def test_languages(step: DetectLanguage, text: str, language: str) -> None:
    assert detect(step, text) == [language]


def test_default_is_used_for_a_low_probability() -> None:
    assert detect(opened(least=1.1), "Das ist der beste Film, den wir je gesehen haben.") == ["en"]


def test_threads_get_the_right_languages(step: DetectLanguage) -> None:
    texts = ["This is the best movie we saw.", "Das ist der beste Film, den wir je gesehen haben."] * 50
    expected = detect(step, *texts)
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(detect(step, *texts))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8
