"""Turns summary sentences of the documentation into the questions and keywords that a person would type."""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable

from stdlib_objects import Documented


def words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMPERATIVES = words_of("""
abort accept acquire add adjust append ask assert attach bind block calculate call cancel change check clear
close collect combine compare compile compress compute concatenate configure connect construct convert copy count
create deactivate decode decompress define delete destroy detach determine disable discard disassemble display
divide draw dump duplicate emit enable encode encrypt ensure enter enumerate escape evaluate execute expand extend
extract feed fetch fill filter find flush force fork format gather generate get group guess handle hash import
indicate initialize insert install interpret invoke iterate join kill list load locate lock log lookup make map
mark match measure merge modify move normalize obtain open pack parse pause perform pickle place pop prepare print
process produce push put query quote raise read receive record register release remove rename replace report request
reset resize resolve restore resume retrieve reverse rotate round run save scan schedule scroll search select send
serialize serve set shift show shuffle shut shutdown skip sleep sort spawn split start stop store strip subtract
suspend swap synchronize take tell terminate test toggle trace transform translate truncate try turn undo unbind
unlock unpack unquote unregister update use validate verify visit wait walk wrap write yield
""")
REWORDED = {
    "specified": "given",
    "retrieve": "get",
    "obtain": "get",
    "fetch": "get",
    "create": "make",
    "construct": "build",
    "delete": "remove",
    "directory": "folder",
    "terminate": "stop",
    "invoke": "call",
    "execute": "run",
    "display": "show",
    "compute": "calculate",
    "containing": "with",
    "modify": "change",
    "determine": "find out",
    "corresponding": "matching",
    "instance": "object",
    "retrieves": "gets",
}
STOP_WORDS = words_of("""
a about all already also an and any are as at be been being but by can could do does each either else for from
get gets given has have how if in instance into is it its like made make more most not object of on one only or
other out over python return returns same see self set should so some specified such than that the their them then
there these they this those to under unless up use used uses using value via was were what when where whether
which while who will with within without would you your none true false otherwise method function class default
new may must just now after before called call raised first last number arguments argument parameter
""")
CHECKS = re.compile(
    r"(?:(?:returns? )?(?:true|whether)(?: if| when| iff)?|(?:checks?|tests?) (?:if|whether)) (.+)", re.I
)
RAISED = re.compile(r"(?:exception )?(?:is )?raised (?:when|if|by|on) (.+)", re.I)
TEMPLATES = {
    "question": (
        "How do I {act}?",
        "How can I {act} in Python?",
        "Which function can {act}?",
        "What is the way to {act}?",
    ),
    "yields": (
        "How do I get {thing}?",
        "What returns {thing}?",
        "Which function gives me {thing}?",
        "How can I find {thing}?",
    ),
    "checks": ("How do I check whether {fact}?", "How can I tell if {fact}?", "What tells me whether {fact}?"),
    "raised": ("Which exception is raised when {fact}?", "What error do I get when {fact}?"),
    "thing": ("Is there {thing} in Python?", "What should I use as {thing}?", "Where do I find {thing}?"),
}


def first_sentence(doc: str) -> str:
    sentence = re.split(r"(?<=[.!?])\s|:$", doc.split("\n")[0])[0]
    return sentence.rstrip(" .:;").replace("*", "")


def words(text: str) -> list[str]:
    """Lower-case words; `snake_case` and `CamelCase` names come apart."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+", " ", text)
    return [word for word in spaced.lower().split() if len(word) > 1]


def salient(text: str) -> frozenset[str]:
    return frozenset(word for word in words(text) if word not in STOP_WORDS)


class Phrases:
    """Chooses source objects, seeded, and writes one query about each."""

    def __init__(self, objects: list[Documented], seed: int) -> None:
        self.random = random.Random(seed)
        self.objects = objects
        self.summaries = {each.name: salient(first_sentence(each.doc)) for each in objects}
        self.holders: dict[str, set[str]] = defaultdict(set)
        for name, summary in self.summaries.items():
            for word in summary:
                self.holders[word].add(name)
        counts = Counter(word for each in objects for word in set(words(each.text)))
        self.rarity = {word: math.log(len(objects) / count) for word, count in counts.items()}
        self.sources = [each for each in objects if self.is_good(each)]

    def is_good(self, each: Documented) -> bool:
        """Public, with one plain summary sentence that says enough and is not said of many others."""
        sentence = first_sentence(each.doc)
        return (
            each.public
            and each.kind != "module"
            and 4 <= len(sentence.split()) <= 24
            and len(self.summaries[each.name]) >= 3
            and not re.search(r"[=<>\[\]{}|#@\\]|\.\.\.|deprecated|internal|undocumented|same as|see ", sentence, re.I)
            and sentence.isascii()
            and sum(sorted((self.rarity.get(word, 0.0) for word in self.summaries[each.name]), reverse=True)[:3]) > 12
            and len(self.relevant(each)) <= 6
        )

    def relevant(self, each: Documented) -> list[str]:
        """The object itself and all whose summary is the same or nearly so."""
        own = self.summaries[each.name]
        near = Counter(name for word in own for name in self.holders[word])
        alike = {name for name, shared in near.items() if shared >= 0.75 * len(own | self.summaries[name])}
        return sorted(alike | {each.name})

    def questions(self, count: int) -> list[tuple[str, list[str]]]:
        return self.write(count, self.question)

    def keywords(self, count: int) -> list[tuple[str, list[str]]]:
        return self.write(count, self.keyword)

    def write(self, count: int, phrase: Callable[[Documented], str | None]) -> list[tuple[str, list[str]]]:
        written: dict[str, list[str]] = {}
        for each in self.random.sample(self.sources, len(self.sources)):
            query = phrase(each)
            if query and query not in written:
                written[query] = self.relevant(each)
            if len(written) == count:
                break
        return list(written.items())

    def question(self, each: Documented) -> str | None:
        sentence = re.sub(r"\s*\([^)]*\)|\B['\"]|['\"]\B|[()]", "", first_sentence(each.doc))
        first, _, rest = sentence.partition(" ")
        verb = base_form(first.lower())
        rest = self.reworded(clause(rest))
        if match := CHECKS.match(sentence):
            form, said = "checks", {"fact": self.reworded(clause(match[1]))}
        elif match := RAISED.match(sentence):
            form, said = "raised", {"fact": self.reworded(clause(match[1]))}
        elif verb == "return":
            form, said = "yields", {"thing": rest}
        elif verb in IMPERATIVES and rest:
            form, said = "question", {"act": f"{REWORDED.get(verb, verb)} {rest}"}
        elif each.kind == "class" and first.lower() in ("a", "an"):
            form, said = "thing", {"thing": f"{first.lower()} {rest}"}
        else:
            return None
        if len(salient(" ".join(said.values()))) < 2:
            return None
        query = self.random.choice(TEMPLATES[form]).format(**said)
        return self.in_context(query, each)

    def in_context(self, query: str, each: Documented) -> str:
        """Half of the questions name the topic, as people do: "... with zipfile?"."""
        topic = each.module.split(".")[0] if each.module != "builtins" else each.name.split(".")[0]
        if topic in words(query) or self.random.random() < 0.5 or query.endswith("in Python?"):
            return query
        return f"{query[:-1]} {self.random.choice(('with', 'in', 'using'))} {topic}?"

    def reworded(self, text: str) -> str:
        return " ".join(REWORDED.get(word, word) for word in text.split())

    def keyword(self, each: Documented) -> str | None:
        """Two to four rare words of the name and the summary, in the order in which they come."""
        named = [word for word in words(each.name) if word not in STOP_WORDS and len(word) > 2]
        told = [word for word in words(first_sentence(each.doc)) if word not in STOP_WORDS and word not in named]
        rarest = sorted(dict.fromkeys(told), key=lambda word: (-min(self.rarity.get(word, 0.0), 6.5), word))[:2]
        chosen = self.random.sample(named, min(len(named), self.random.choice((1, 1, 2)))) + rarest
        ordered = [word for word in dict.fromkeys(named + told) if word in chosen]
        return " ".join(ordered) if len(ordered) >= 2 else None


def base_form(word: str) -> str:
    """`parses` -> `parse`, `tries` -> `try`; anything else stays."""
    for ending, instead in (("s", ""), ("es", ""), ("ies", "y")):
        if word.endswith(ending) and word[: -len(ending)] + instead in IMPERATIVES | {"return"}:
            return word[: -len(ending)] + instead
    return word


def clause(text: str) -> str:
    """The first clause, at most 14 words; people do not type the rest."""
    head = re.split(r"[,;:]| - | -- | and returns? | otherwise| else ", text)[0]
    head = head if len(head.split()) >= 3 else text
    return " ".join(head.split()[:14])
