"""How many captions a second does the matcher screen on one core, and how often does it cry wolf?

Made-up captions of 60 to 100 characters, one in five not ASCII, against 3,000 terms: the shipped words and made-up
ones. The reference is a compiled alternation of the terms, searched caption by caption, with no folding but case.
Planted terms have to be found in every disguise. The panel of benign captions lies with the tests; its rates say
how the shipped words fare on it and nothing about other captions.
`--quick` takes few captions, to see that it runs; its figures say nothing.
"""

from __future__ import annotations

import os
import random
import re
import statistics
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measuring import interleave, median_ratio, save  # noqa: E402 - the paths come first

from classifiers.text.folding import fold_term  # noqa: E402
from classifiers.text.terms import TermList, TermMatcher, shipped_terms  # noqa: E402

QUICK = "--quick" in sys.argv[1:]
CAPTIONS, ROUNDS = (2_000, 1) if QUICK else (50_000, 5)
REFERENCE_EVERY = 20  # the reference is slow: it gets every 20th caption, and so do we where the two are compared
TERMS, PLANTED_SHARE = 3_000, 0.01
LEAST_PER_S = 150_000
PANEL = ROOT / "tests" / "unit" / "classifiers" / "benign_captions.toml"
RANDOM = random.Random(0)
LETTERS, WEIGHTS = "etaoinshrdlucmfwypvbgkjqxz", range(26, 0, -1)
ACCENTS = {"a": "áàâäãå", "e": "éèêë", "i": "íìîï", "o": "óòôöõø", "u": "úùûü", "n": "ñ", "c": "ç"}
LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
DISGUISES = {
    "case": str.upper,
    "accents": lambda term: "".join(char + "\u0301" for char in term),
    "full width": lambda term: "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in term),
    "joiners": "\u200d".join,
    "leet": lambda term: term[0] + "".join(LEET.get(char, char) for char in term[1:]),
    "spacing": " ".join,
    "dots": ".".join,
}


def word(least: int, most: int) -> str:
    """Return letters about as frequent as in English."""
    return "".join(RANDOM.choices(LETTERS, WEIGHTS, k=RANDOM.randint(least, most)))


def make_terms() -> list[TermList]:
    """Return the shipped lists, filled up to 3,000 terms with words and CJK pairs that mean nothing."""
    minor, sexual = shipped_terms("minor"), shipped_terms("sexual")
    made: set[str] = set()
    while len(made) < TERMS - len(minor.terms) - len(sexual.terms):
        in_cjk = RANDOM.random() < 0.1
        made.add(
            chr(RANDOM.randint(0x4E00, 0x6000)) + chr(RANDOM.randint(0x4E00, 0x6000)) if in_cjk else word(4, 10)
        )
    return [minor, sexual.joined_with(TermList("sexual", tuple(sorted(map(fold_term, made)))))]


def in_script(caption: str, number: int) -> str:
    """Return a caption as it would look in another script: accents twice as often as Cyrillic or CJK."""
    if number % 4 < 2:
        return "".join(RANDOM.choice(ACCENTS.get(c, c)) if RANDOM.random() < 0.2 else c for c in caption) + "é"
    if number % 4 == 2:
        return "".join(chr(0x430 + ord(c) - 97) if c.isalpha() else c for c in caption)
    return "".join(chr(RANDOM.randint(0x4E00, 0x5E00)) for _ in caption)


def make_captions(terms: list[str]) -> list[str]:
    """Return captions with figures and punctuation, a term planted in one of a hundred."""
    words = [word(1, 9) for _ in range(20_000)] + ["2nd", "1080p", "2019", "it's", "3d", "A4"] * 100
    captions = []
    for number in range(CAPTIONS):
        size, caption = RANDOM.randint(60, 100), ""
        while len(caption) < size:
            caption += RANDOM.choice(words).title() + RANDOM.choice([" ", " ", " ", ", ", " - ", ". "])
        caption = caption[:size]
        if RANDOM.random() < PLANTED_SHARE:
            caption = RANDOM.choice(terms) + " " + caption[:60]
        captions.append(in_script(caption.lower(), number // 5) if number % 5 == 0 else caption)
    return captions


def per_cpu_second(matcher: TermMatcher, captions: list[str]) -> float:
    """Return captions a second of processor time, which other work on the machine changes less than the clock."""
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        matcher.score_texts(captions)
        taken.append(time.process_time() - began)
    return len(captions) / statistics.median(taken)


def speed(matcher: TermMatcher, captions: list[str], terms: list[str]) -> dict[str, object]:
    """Time the matcher on all captions, and both on some."""
    pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, terms)) + r")\b", re.IGNORECASE)
    ascii_only = [caption for caption in captions if caption.isascii()]
    # Every 20th is also every fifth, which is never ASCII: one further each time.
    few = [captions[at + at // REFERENCE_EVERY % 5] for at in range(0, len(captions), REFERENCE_EVERY)]
    seconds = interleave(
        {
            "ours": lambda: matcher.score_texts(captions),
            "ours, ASCII alone": lambda: matcher.score_texts(ascii_only),
            "ours, some": lambda: matcher.score_texts(few),
            "reference, some": lambda: [pattern.search(caption) is not None for caption in few],
        },
        rounds=ROUNDS,
    )
    sizes = {"ours": captions, "ours, ASCII alone": ascii_only, "ours, some": few, "reference, some": few}
    return {
        "captions_per_s": {name: len(sizes[name]) / statistics.median(taken) for name, taken in seconds.items()},
        "captions_per_cpu_s": per_cpu_second(matcher, captions),
        "slowest_captions_per_s": len(captions) / max(seconds["ours"]),
        "ratio": median_ratio(seconds["reference, some"], seconds["ours, some"]),
        "not_ascii": 1 - len(ascii_only) / len(captions),
        "mean_characters": statistics.mean(map(len, captions)),
        "share_with_a_hit": float(max(column.mean() for column in matcher.score_texts(captions).values())),
    }


def planted(matcher: TermMatcher, terms: list[str]) -> dict[str, float]:
    """Return by disguise the share of planted terms that are found; terms of one ASCII word."""
    words = [term for term in terms if term.isascii() and term.isalpha()]
    shares = {}
    for name, disguise in DISGUISES.items():
        columns = matcher.score_texts([f"photo of {disguise(term)}, 1920s" for term in words]).values()
        shares[name] = float(sum(columns).clip(max=1).mean())
    return shares


def false_alarms() -> dict[str, dict[str, list[int]]]:
    """Return by subject [false alarms, captions] of the shipped words on the panel."""
    matcher = TermMatcher([shipped_terms("minor"), shipped_terms("sexual")])
    rates: dict[str, dict[str, list[int]]] = {"sexual": {}, "minor": {}}
    for subject, captions in tomllib.loads(PANEL.read_text("utf-8")).items():
        without, every = captions["without_children"], captions["without_children"] + captions["with_children"]
        rates["sexual"][subject] = [int(matcher.score_texts(every)["sexual"].sum()), len(every)]
        rates["minor"][subject] = [int(matcher.score_texts(without)["minor"].sum()), len(without)]
    return rates


def main() -> None:
    """Measure, print the figures and write them."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    load = os.getloadavg()[0]
    lists = make_terms()
    terms = sorted({term for entry in lists for term in entry.terms})
    matcher = TermMatcher(lists)
    timed, found, alarms = speed(matcher, make_captions(terms), terms), planted(matcher, terms), false_alarms()
    for name, rate in timed["captions_per_s"].items():
        print(f"    {name:<20}{rate:12,.0f} captions/s")
    print(f"    {timed['captions_per_cpu_s']:,.0f} captions per second of processor time")
    print(f"    ratio {timed['ratio']:.0f}x, slowest round {timed['slowest_captions_per_s']:,.0f} captions/s")
    for name, share in found.items():
        print(f"    planted, {name:<12}{share:8.2%} found")
    for concept, subjects in alarms.items():
        hits, count = (sum(pair[part] for pair in subjects.values()) for part in (0, 1))
        parts = ", ".join(f"{subject} {pair[0]} of {pair[1]}" for subject, pair in subjects.items())
        print(f"    false alarms, {concept}: {hits} of {count} ({hits / count:.0%}): {parts}")
    plan = {
        "captions": CAPTIONS,
        "rounds": ROUNDS,
        "terms": len(terms),
        "planted_share": PLANTED_SHARE,
        "least_captions_per_s": LEAST_PER_S,
        "full_names": [entry.full_name for entry in lists],
    }
    results = {"load_at_start": load, "speed": timed, "planted": found, "false_alarms": alarms}
    print(save("captions_quick" if QUICK else "captions", plan, results))


if __name__ == "__main__":
    main()
