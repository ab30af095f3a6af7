"""Reject set phrases of chat models: refusals, openers, closers, chat tokens.

A student would learn them as part of the task. A phrase counts only in its place: at the opening of
the reply, rationale or answer, at the close, or at the beginning of a sentence. A phrase that the
inputs contain belongs to the task (a letter to be rewritten may end in "Let me know if you have any
questions"). So does one of a kind that the target has, and a courtesy in a letter.

A refusal says that the assistant cannot do what it is asked. "I am sorry, but I cannot come on
Monday" is a person's, and may be the right text of a message.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.filters import sample_text
from pipeline.filters.heuristics import refusals
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample

Reason = Literal["refused", "boilerplate"]
Place = Literal["opening", "close", "sentence", "anywhere"]

CLOSE = 240  # characters at the end of a part that are searched for closers
SHOWN = 80

# building blocks of the expressions below
UNABLE = (
    r"(?:(?:can(?:no|')t|can not|could not|couldn't)(?: really)?|am (?:unable|not able)(?: to)?"
    r"|'m (?:unable|not able|not comfortable)(?: to)?|won't(?: be able to)?|will not(?: be"
    r" able to)?"
    r"|must (?:respectfully |politely )?decline(?: to)?|have to decline(?: to)?)"
)
# what an assistant is asked for; a person's own deeds (come, recommend a film) are the task's
REQUEST = (
    r"(?:(?:with |to |on |in |by )?(?:that|this|these|those|it|such|your|the|any|what you)"
    r"(?: (?:kind|kinds|type|types|sort) of)?(?: \w+){0,2}? ?"
    r"(?:request|requests|question|questions|query|prompt|task|topic|content|instructions?"
    r"|information|conversation|material|demand)\b"
    r"|(?:with |to |in |on |about )?(?:that|this|these|those|it|such requests?)\s*(?:[.!;\n]"
    r"|,? but\b|\Z))"
)
DOMAIN = (
    r"(?:(?:any |specific |personali[sz]ed )?(?:medical|legal|financial|investment|tax|professional"
    r"|harmful|explicit|sexual|illegal|dangerous|hateful|real-time|inappropriate|fake)\b)"
)
DEED = (
    rf"(?:(?:help|assist)(?: you)?(?:\s*(?:[.!;\n]|\Z)| (?:you )?{REQUEST}|"
    rf" with (?:creating|writing|generating|making|providing|anything))"
    rf"|(?:answer|provide|comply|fulfill?|do|continue|engage|create|generate|discuss|share|offer"
    rf"|support|complete|respond|produce|participate|process|write|give)(?: you)?(?: in| with)? "
    rf"(?:{REQUEST}|{DOMAIN})"
    rf"|(?:comply|engage|participate|respond)\s*(?:[.!;\n]|\Z)"
    r"|(?:provide|give|create|generate|write|produce|engage in|participate in|share|offer)"
    r"(?: you)?(?: with)? (?:(?:detailed |specific |any )?instructions|guidance|discussions?"
    r"|content"
    r"|material|assistance) (?:for|on|about|that|which|to|with|of)\b"
    rf"|(?:access|browse|open|view|search)(?: to)? "
    rf"(?:the (?:internet|web)|real-time|external|websites|links|urls)\b|verify (?:real-time"
    rf"|current)"
    rf"|(?:provide|give|recommend|offer|share|help(?: you)? with) {DOMAIN})"
)
SORRY = (
    r"(?:(?:i'm|i am) (?:very |so |truly |really |deeply )?(?:sorry|afraid)|sorry|(?:my "
    r"|please accept"
    r" my )?(?:sincere )?apologies|(?:i (?:must |sincerely )?)?apologi[sz]e(?: for (?:the|any)"
    r" \w+)?"
    r"|i regret(?: to (?:say|inform you))?|regrettably|unfortunately|thank you for \w+[^.!\n]{0,40}"
    r"|while i (?:understand|appreciate)[^.!\n]{0,60})"
)
# what no assistant is to make or help with, of the first words behind the deed
HARM = (
    r"(?:fake|forged?|counterfeit|malware|ransomware|virus(?:es)?|spyware|keyloggers?|phishing"
    r"|exploits?|bombs?|weapons?|explosives?|poisons?|meth|drugs|hack\w*|steal\w*|stolen|harm\w*"
    r"|illegal|defamatory|racist|sexist|porn\w*)\b"
)
MADE = (
    r"(?:rewritten|revised|corrected|translated|improved|requested|edited|updated|final|polished"
    r"|paraphrased|simplified)"
)
THING = (
    r"(?:answer|translation|summary|solution|response|rewrite|revision|version|breakdown"
    r"|explanation|list|table|code|json|step-by-step"
    r"|analysis|classification|output)"
)

# Each regular expression with a text that it matches. Case is ignored, and every apostrophe in the
# searched text is replaced by ' first.
PHRASES: dict[tuple[Reason, Place], dict[str, str]] = {
    ("refused", "opening"): {
        rf"(?:{SORRY}[,.!;:]*\s+)?(?:but |however,? |that )*"
        rf"i ?{UNABLE} {DEED}": "I'm sorry, but I can't help with that.",
        rf"(?:{SORRY}[,.!;:]*\s+)?(?:but |however,? |that )*i ?{UNABLE} (?:(?:help|assist)(?: you)?"
        rf"(?: with| to)? )?(?:creat|writ|mak|generat|provid|produc|build|develop|giv)\w*(?: you)?"
        rf" (?:[\w-]+ ){{0,2}}{HARM}": "I can't create a fake ID.",
        rf"{SORRY}[,.!]? (?:but |however,? )*as an ai\b": "Sorry, but as an AI I have no opinion.",
        rf"{SORRY}[,.!]? (?:but |however,? )?(?:that|this) (?:is|falls|goes"
        rf"|request)\b[^.!?\n]{{0,40}}"
        r"\b(?:(?:i can|i'm able|i am able)\b|guidelines|policy|policies|scope of my)"
        r"": "I apologize, but this is something I can't do.",
        rf"{SORRY}[,.!]? (?:but |however,? )*i ?(?:am|'m) not able to continue|{SORRY}[,.!]?"
        rf" (?:but )?i "
        r"?(?:cannot|can't|can not) (?:share|disclose|provide|do|answer) (?:that|this|it)"
        r"\s*(?:[.!;\n]|,? but\b|\Z)": "Sorry, but I cannot share that.",
        rf"{SORRY}[,.!]? (?:but |however,? )*i ?{UNABLE} (?:classify|determine|identify|translate"
        r"|summari[sz]e|rewrite|label|extract|solve|complete)"
        r" (?:the|this|that|your) (?:\w+ )?(?:text|message|answer|label|question|passage|sentence"
        r"|input|content|document|task|class|category|sentiment|problem|review)\b"
        r"": "I'm sorry, but I cannot classify this message.",
        r"i (?:must|have to|need to) (?:respectfully |politely )?decline (?:to (?:answer|help"
        r"|assist"
        r"|provide|comply|write|create|generate|fulfill?)|(?:this|your|that) (?:request|question"
        r"|task|prompt))\b": "I must decline this request.",
        r"(?:it is|it's|that is|that's) (?:not possible|impossible) for me (?:to|as an)\b"
        r"": "It is not possible for me to open links.",
        r"(?:unfortunately,? )?i (?:do not|don't|currently don't|currently do not) have (?:the"
        r" |any )?"
        r"(?:ability|capability|capabilities|(?:real-time |direct |live )?access|permission|enough"
        r"|sufficient) (?:to|information to|context to|real-time)\b(?=[^.!?\n]{0,20}\b(?:the"
        r" (?:internet"
        r"|web|news|file|files|image|link)|internet|browse|real-time|current|external|answer"
        r"|determine|provide|open|view|see|hear|access|search|perform|assist|help|classify)\b)"
        r"": "I don't have the ability to browse the internet.",
        rf"(?:{SORRY}[,.!]? (?:but )?)?i ?(?:am|'m) not (?:able|allowed|permitted|programmed"
        rf"|designed"
        rf"|trained) to {DEED}": "I am not allowed to discuss that.",
        rf"i ?(?:{UNABLE}|'m unable|am unable) (?:to )?(?:provide|help with|assist with"
        rf"|fulfill?|answer) "
        r"(?:it|that|this)\b": "I'm unable to provide it.",
        r"i do not feel comfortable|i don't feel comfortable|i(?: am|'m) "
        r"not comfortable (?:with )?(?:\w+ing (?:that|this|it|such|content|about)|that|this)"
        r"": "I'm not comfortable writing that.",
        r"as an ai\b": "As an AI, I have no opinion.",
        r"i(?:'m| am) (?:just |only )?an? (?:ai|language model|large language "
        r"model)\b(?! \w+er\b)": "I am an AI and have no feelings.",
        **refusals.PHRASES,
    },
    ("boilerplate", "sentence"): {
        r"as an ai(?: language)?"
        r"(?: model| assistant)?,? i\b": "It is hot. As an AI language model, I cannot feel it.",
        r"as a (?:large )?language model,? i\b": "As a large language model, I was not there.",
    },
    ("boilerplate", "anywhere"): {
        r"\bi(?:'m| am) (?:just |only )?an? ai "
        r"(?:language model|assistant|model)\b": "Remember that I'm just an AI model.",
        r"\bi was (?:trained|created|developed) by (?:openai|anthropic|google|meta|alibaba"
        r"|deepseek|mistral)\b": "I was created by OpenAI.",
        r"\bmy (?:knowledge cut-?off|training "
        r"(?:data|cut-?off))\b": "That is beyond my knowledge cutoff.",
        r"\bas of my (?:last|latest|most recent) (?:knowledge |training )?"
        r"(?:update|cut-?off|training)\b": "As of my last update, it is open.",
        r"<\|[a-z][a-z0-9_ -]{1,30}\|>": "spam<|im_end|>",
        r"<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|\[/?"
        r"(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS)\]": "[/INST] spam",
        r"<\uff5c[^\uff5c<>]{1,30}\uff5c>": "<\uff5cend▁of▁sentence\uff5c>",
        r"(?:</s>|<eos>)\s*\Z": "spam</s>",
        r"^#{2,3} ?(?:instruction|response|input|human|assistant):?\s*$": "### Response:\nspam",
        r"\[(?:insert|enter|add|your|recipient's|sender's|customer's|client's) [a-z' /]{1,30}\]|\["
        r"(?:company|recipient|sender) (?:name|address)\]|\[(?:full |first |last )?(?:name"
        r"|date|address|signature|title|position"
        r"|phone(?: number)?|company|email(?: address)?)\]": "Dear [Your Name],",
    },
    ("boilerplate", "opening"): {
        r"(?:sure|certainly|of course|absolutely|gladly|okay|ok|great|no problem)"
        r"(?: thing)?[,.!:]+ (?:here(?:'s| is| are)\b|i(?:'d| would) be|i(?:'ll| can| will) "
        r"(?:help|be happy|gladly)|let(?:'s| me)\b|happy to)": "Sure, here's the answer.",
        r"(?:certainly|absolutely|gladly|sure)!": "Certainly! The label is spam.",
        r"(?:what |that's |that is )?(?:an? )?(?:great|good|excellent|interesting"
        r"|fantastic) question[!.]": "Great question! Let us see.",
        r"thank(?:s| you) for (?:your (?:question|query|request|message)|asking|reaching "
        r"out|providing)\b": "Thank you for your question.",
        r"i(?:'d| would) be (?:happy|glad|delighted) to\b|i'm (?:happy|glad|here) to "
        r"(?:help|assist)": "I'd be happy to help you.",
        rf"(?:here(?:'s| is| are)|below is) (?:the |your |a |an |my )?"
        rf"(?:{MADE} (?:\w+ ){{0,2}}\w+"
        rf"|{THING})\b[^.!?\n]{{0,60}}:\s": "Here is the rewritten text:\nHe left.",
        r"based on the (?:information|context|text|passage|message|details) "
        r"(?:provided|given|above|you)": "Based on the information provided, it is 4.",
    },
    ("boilerplate", "close"): {
        r"(?:i )?hope (?:this|that|it) (?:helps|was helpful|is helpful"
        r"|clarifies|answers)": "It is 4. I hope this helps!",
        r"(?:please )?let me know if (?:you(?:'d| would) like|you (?:have|need|want|require)|there"
        r"(?:'s| is) anything|i can|this "
        r"(?:helps|works)|anything)": "It is 4. Let me know if you need anything else.",
        r"(?:please )?(?:feel free to|don't hesitate to|do not hesitate to) "
        r"(?:ask|reach out|contact|let me know)": "Feel free to ask me more.",
        r"if you have any (?:other |more |further |additional )?"
        r"(?:questions|concerns)": "If you have any further questions, just ask.",
        r"(?:is there anything else|what else can i|how else can i|would you like me to|do "
        r"you want me to)": "Is there anything else I can do for you?",
        r"(?:i'm |i am )?(?:always )?happy to (?:help|assist)(?: you)?"
        r"(?: further| more| with)?[.!]": "Happy to help!",
    },
}
PLACES = {
    "opening": r"\A[\W_]*(?:{})",
    "close": r"(?:\A|[.!?\n:)])\W{{0,4}}(?:{})",
    "sentence": r"(?:\A|[.!?\n]\W{{0,4}})(?:{})",
    "anywhere": r"(?:{})",
}

# apostrophes that models write, and spaces
STRAIGHT = {
    **dict.fromkeys("\u2019\u2018\u2032\u02bc\u02b9\u00b4`\u201b\uff07\u055a\u2035", "'"),
    **dict.fromkeys("\u00a0\u202f\u2009\u2002\u2003\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\ufeff\u2060", ""),
}
ODD = re.compile(f"[{''.join(STRAIGHT)}]")
MARKS = re.compile(r"\*\*+|__+|(?<!\w)[*_](?=\w)|(?<=[\w.,!?])[*_](?!\w)")
SALUTATION = re.compile(
    r"\A\W*(?:subject|betreff|objet|asunto):|"
    r"\A\W*(?:dear|hi|hello|hey|good (?:morning|afternoon|evening)|to whom it may"
    r" concern)\b[^.!?\n]{0,40},?\s*\n"
    r"|^\W*(?:(?:best|kind|warm)(?: regards| wishes)|regards|yours|sincerely"
    r"|cheers)\b[^.!?\n]{0,30},?\s*$",
    re.IGNORECASE | re.MULTILINE,
)


def _compiled(place: Place, phrases: Iterable[str]) -> re.Pattern[str]:
    alternatives = "|".join(f"(?:{expression})" for expression in phrases)
    return re.compile(PLACES[place].format(alternatives), re.IGNORECASE | re.MULTILINE)


PATTERNS = {key: _compiled(key[1], phrases) for key, phrases in PHRASES.items()}


def first_phrases(batch: Batch) -> list[dict[str, str] | None]:
    """Return for each sample its first phrase by reason, or None if it has no phrase."""
    return [_first_phrases(sample) or None for sample in batch.samples]


def contains(
    rows: NDArray[np.int64], column: Sequence[dict[str, str] | None], reason: Reason
) -> dict[int, Verdict]:
    """Reject samples with a phrase of this reason. The value is the phrase."""
    verdicts = {}
    for row in rows.tolist():
        phrases = column[row]
        if phrases and reason in phrases:
            verdicts[row] = Verdict(reason, phrases[reason])
    return verdicts


def _first_phrases(sample: Sample) -> dict[str, str]:
    # a dict removes duplicates and keeps the order: the answer may be the whole text
    parts = dict.fromkeys((sample.text, sample.rationale, sample.answer))
    texts = [_straight(part) for part in parts if part]
    phrases: dict[str, str] = {}
    for (reason, place), pattern in PATTERNS.items():
        if reason not in phrases:
            searched = [text[-CLOSE:] for text in texts] if place == "close" else texts
            found = _first_foreign(sample, reason, searched, pattern)
            if found and not _belongs_to_task(sample, reason, place, pattern):
                phrases |= found
    return phrases if "boilerplate" in phrases else phrases | _placeholder(sample)


def _belongs_to_task(
    sample: Sample, reason: Reason, place: Place, pattern: re.Pattern[str]
) -> bool:
    """Return whether a good answer contains such a phrase: the target does, or it is a letter."""
    target = sample.seed.target
    if isinstance(target, str) and pattern.search(_straight(target)):
        return True
    is_form = reason == "boilerplate" and place in ("opening", "close")
    return is_form and SALUTATION.search(sample.text) is not None


def _first_foreign(
    sample: Sample, reason: Reason, texts: Iterable[str], pattern: re.Pattern[str]
) -> dict[str, str]:
    """Return, under its reason, the first match that the inputs do not contain."""
    for text in texts:
        for match in pattern.finditer(text):
            if not _is_in_inputs(sample, match.group()):
                return {reason: match.group().strip()[:SHOWN]}
    return {}


def _placeholder(sample: Sample) -> dict[str, str]:
    """Return a placeholder of the prompt, {{ name }}, that the reply contains."""
    if "{{" not in sample.text:
        return {}
    names = "|".join(map(re.escape, sample.seed.inputs))
    pattern = re.compile(rf"\{{\{{-?\s*(?:{names})\b[^{{}}\n]{{0,40}}\}}\}}")
    return _first_foreign(sample, "boilerplate", [sample.text], pattern)


def _is_in_inputs(sample: Sample, phrase: str) -> bool:
    inputs = _straight(sample_text.input_text(sample))
    return phrase.strip(" \n.,!?:").casefold() in inputs.casefold()


def _straight(text: str) -> str:
    """Return the text with one kind of apostrophe and of space, without marks of bold text."""
    if "*" in text or "_" in text:
        text = MARKS.sub("", text)
    if text.isascii() and "`" not in text:
        return text
    return ODD.sub(lambda match: STRAIGHT[match.group()], text)
