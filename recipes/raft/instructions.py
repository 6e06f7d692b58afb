"""Everyday questions and requests, by topic: sets never share one."""

from __future__ import annotations

from collections.abc import Iterator

TOPICS = {
    "train": {
        "cooking": "cook rice, boil an egg, bake a potato, keep bread fresh, make tomato soup, chop an onion, store"
        " fresh herbs, make pancakes, roast vegetables, clean a burnt pan",
        "garden": "water house plants, grow tomatoes, keep slugs away, prune a rose, start a compost heap, sow"
        " carrots, repot a fern, cut the lawn, attract bees, collect rain water",
        "home": "fix a dripping tap, hang a picture, remove a coffee stain, paint a wall, unblock a sink, change a"
        " light bulb, clean the windows, fold a shirt, sharpen a knife, stop a door from squeaking",
        "study": "learn new words, prepare for an exam, take good notes, write a summary, read faster, remember"
        " dates, plan an essay, stay focused, practise spelling, give a short talk",
        "health": "fall asleep earlier, drink more water, start running, sit better at a desk, rest my eyes, stretch"
        " in the morning, eat more fruit, calm down, walk more every day, get over a cold",
        "travel": "pack a suitcase, find a cheap flight, sleep on a train, avoid jet lag, choose a hotel, read a map,"
        " cross a busy city, change money, plan a weekend trip, keep a passport safe",
        "money": "save a little every month, plan a budget, compare two prices, sell an old bike, spend less on food,"
        " read a bill, choose a bank, split the rent, buy a used car, lend money to a friend",
        "computers": "choose a password, back up my photos, clean a keyboard, speed up a slow laptop, write a polite"
        " email, sort my files, find a lost document, print on both sides, block spam, charge a phone",
    },
    "validate": {
        "pets": "feed a kitten, walk a big dog, clean a fish tank, brush a rabbit, train a puppy, calm a nervous cat,"
        " choose a hamster, trim a parrot's claws",
        "weather": "dress for rain, keep cool in summer, drive in fog, stay warm outside, prepare for a storm,"
        " protect my skin from the sun, walk on ice, read a forecast",
    },
    "test": {
        "music": "learn the guitar, tune a violin, sing in a choir, choose a piano, remember a melody, write a song,"
        " practise scales, play the drums quietly",
        "sports": "learn to swim, throw a ball far, choose running shoes, warm up before a match, ride a bike uphill,"
        " play chess, climb safely, keep score in tennis",
        "family": "plan a birthday, calm a crying baby, thank my grandmother, play with twins, share the housework,"
        " tell a bedtime story, visit an uncle, settle a quarrel",
        "work": "ask for a day off, greet a new colleague, prepare a meeting, answer a customer, write a report, say"
        " no to a task, tidy my desk, start in a new job",
        "letters": "end a formal letter, write a thank-you card, invite a neighbour, apologise for being late,"
        " address an envelope, congratulate a friend, cancel an order, ask for a refund",
        "clothes": "wash a wool sweater, sew on a button, polish shoes, iron a shirt, store winter coats, choose a"
        " tie, mend a sock, dry jeans",
        "town": "borrow a library book, find a doctor, report a lost key, use a bus, recycle glass, join a club, vote"
        " in an election, meet my neighbours",
        "crafts": "knit a scarf, fold a paper plane, carve a pumpkin, draw a face, glue wood, take a good photo, dye"
        " cloth, build a bird house",
    },
}
FORMS = ("How do I {task}?", "Can you tell me how to {task}?", "I want to {task}. What should I do?")


def rows(name: str) -> Iterator[dict[str, str]]:
    """Every task of the set in one or, for training, in two of the forms."""
    tasks = [
        (topic, task.strip()) for topic, listed in TOPICS[name].items() for task in " ".join(listed.split()).split(",")
    ]
    for number, (topic, task) in enumerate(tasks):
        for form in range(2 if name == "train" else 1):
            question = FORMS[(number + form) % len(FORMS)].format(task=task)
            yield {"prompt": question, "topic": topic, "task": task}


def train() -> Iterator[dict[str, str]]:
    """160 of eight topics."""
    yield from rows("train")


def validate() -> Iterator[dict[str, str]]:
    """16 of two others."""
    yield from rows("validate")


def test() -> Iterator[dict[str, str]]:
    """64 of eight others."""
    yield from rows("test")
