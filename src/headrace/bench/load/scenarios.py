"""The ready-made conversations, and how long their answers may get.

Short ones are a question, medium ones a task in a paragraph, long ones have material to read or
turns that went before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from headrace.bench.load.long_conversations import LONG

Conversation: TypeAlias = tuple[dict[str, object], ...]

MAX_TOKENS: Mapping[str, int] = {"short": 32, "medium": 128, "long": 256}
PARTS: Mapping[str, int] = {"short": 50, "medium": 30, "long": 20}
"""What of a hundred mixed requests each is."""

_SHORT = (
    "What is the capital of Portugal?",
    "Give me three words that rhyme with 'river'.",
    "Is 91 a prime number? Answer yes or no, and say why in one sentence.",
    "Translate into German: 'The train leaves at seven.'",
    "What does HTTP status 429 mean?",
    "How many grams are in two and a half ounces?",
    "Name the four chambers of the human heart.",
    "Correct this sentence: 'Him and me goes to the market yesterday.'",
    "Which planet has the shortest day?",
    "Write a Python expression that reverses a list called items.",
    "What is a polite way to decline a meeting?",
    "Who wrote 'Pride and Prejudice'?",
    "Say in one sentence what inflation is.",
    "Which day comes 100 days after a Monday?",
    "Is this review positive or negative: 'It broke after a week, but they replaced it at once.'?",
    "What should I do first when milk boils over?",
    "Give the opposite of 'generous'.",
    "In SQL, how do I count the rows of a table named orders?",
    "What is the difference between weather and climate, in one line?",
    "Suggest a name for a small grey cat.",
)

_MEDIUM = (
    "Explain to a colleague who knows Python but not databases what an index does, when it makes a"
    " query faster and when it only costs. Use an example with a table of customers and two"
    " queries that look alike but behave differently.",
    "I am planning four days in Lisbon in November with two children of six and nine. We like"
    " trams, the sea and anything one can climb. Suggest a plan for each day with one thing for"
    " rain, and keep walks under half an hour.",
    "Write a letter to my landlord. The heating in the bedroom has not worked for nine days, I"
    " have called twice, and the man who was to come on Tuesday did not. Be firm and friendly, ask"
    " for a date within this week, and mention that I have kept a record of the temperatures.",
    "Here is a function: def mean(xs): return sum(xs) / len(xs). It fails for an empty list and"
    " loses digits for long lists of large numbers. Rewrite it so that it says clearly what is"
    " wrong with its input, and show how you would test it.",
    "Compare a heat pump with a gas boiler for a house of 120 square metres built in 1985 that has"
    " new windows but old radiators. What decides which one is cheaper over fifteen years? Name"
    " the three figures that I ought to find out before I talk to anybody who sells either.",
    "Our team of seven has a meeting every morning that was to take ten minutes and takes forty."
    " People report to the lead and stop listening. Suggest two ways to change that, say what each"
    " costs us, and how we would notice after two weeks whether it worked.",
    "Summarise the following for a newspaper's front page in at most sixty words: the city council"
    " voted eleven to eight to close the old bridge to cars from next spring. Shops on the east"
    " bank fear for their customers, while a school nearby has asked for it since an accident in"
    " March. A trial over six months is to be followed by a count and another vote.",
    "Write a short story of about eight sentences in which a lighthouse keeper receives a letter"
    " meant for the keeper before him. The letter must not be quoted, but at the end the reader"
    " should know what was in it.",
    "A shop sells coffee at 14.40 for 450 g and at 21.00 for 700 g, and gives ten per cent off the"
    " larger bag from the second one on. I drink 60 g a day. What do I pay for ninety days with"
    " either bag, and which should I buy? Show each step.",
    "Explain how vaccination against measles protects people who cannot be vaccinated. Write for"
    " a parent who is unsure and has read a good deal, without talking down. Say where the figure"
    " of ninety-five per cent comes from.",
    "Review this commit message: 'fixed stuff'. The change makes the upload retry three times on a"
    " time-out, waits longer each time, and no longer writes the token into the log. Write what it"
    " should have said, and explain in three sentences what a reader a year from now needs.",
    "I have chickpeas, two carrots, half a cabbage, yoghurt, lemons and the usual spices, and"
    " forty minutes. Four people will eat, one of whom cannot have gluten. Suggest a dinner with"
    " the order in which to do things so that everything is warm at the same time.",
    "What are the arguments for and against letting a program decide whether someone gets a loan?"
    " Give three of each, in order of weight, and end with the one question that a bank should"
    " have to answer before it uses such a program.",
    "Turn these notes into minutes: Anna, Bo, Chen there, Dita ill. Budget: 4 percent over, mostly"
    " travel; Bo looks into trains. Hiring: two good candidates, decision by Friday, Chen writes"
    " to both. Website: old prices still shown, Anna fixes it today. Next time: room 4, at ten.",
    "Describe the water cycle for a class of ten-year-olds. Use one picture that they know from a"
    " kitchen, avoid the word 'evaporation' until you have shown it, and close with a question that"
    " they can answer by looking out of the window.",
    "A service of ours answers in 80 ms at the median and in 2.4 s at the 99th percentile. Traffic"
    " is even and the processor is at 30 per cent. List the likely causes in the order in which"
    " you would check them, and say for each which measurement would confirm it.",
    "Translate into French, keeping the tone: 'Dear neighbours, on Saturday our daughter turns"
    " eighteen, and it may get loud. From eleven on we shall try to be quiet. If we do not succeed,"
    " ring the bell: there will be cake for whoever comes to complain.'",
    "Write a regular expression that finds dates like 3.4.2025 and 03.04.25 but not version"
    " numbers like 3.4.20255. Explain each part, name two inputs on which it is still wrong, and"
    " say whether you would rather not use a regular expression here at all.",
    "I want to learn to run five kilometres within ten weeks, starting from nothing, on three days"
    " a week. I once had trouble with my left knee. Make a plan with what to do each week, and"
    " tell me which signs mean that I should rest.",
    "Explain the difference between a process and a thread to somebody who runs a restaurant. Stay"
    " within the restaurant for the whole explanation, include what happens when two cooks reach"
    " for the same pan, and then say in one sentence what that is called.",
)


def _asks(texts: tuple[str, ...]) -> tuple[Conversation, ...]:
    return tuple(({"role": "user", "content": text},) for text in texts)


CONVERSATIONS: Mapping[str, tuple[Conversation, ...]] = {
    "short": _asks(_SHORT),
    "medium": _asks(_MEDIUM),
    "long": tuple(tuple({"role": role, "content": text} for role, text in turns) for turns in LONG),
}
