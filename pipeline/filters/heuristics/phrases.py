"""Reject set phrases of chat models: refusals, openers, closers, chat tokens.

A student would learn them as part of the task. Most phrases count only at one place: at the opening
or the close of the reply, rationale or answer, or at the beginning of a sentence. A phrase that the
inputs contain is part of the task and is ignored. For example, a letter to be rewritten may end in
"Let me know if you have any questions".
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.filters import sample_text
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample

Reason = Literal["refused", "boilerplate"]
Place = Literal["opening", "close", "sentence", "anywhere"]

CLOSE = 240  # characters at the end of a part that are searched for closers
SHOWN = 80

# building blocks of the expressions below
UNABLE = (
    r"(?:can(?:no|')t|can not|am (?:unable|not able)|'m (?:unable|not able|not comfortable)|won't"
    r"|will not|must decline|have to decline)"
)
DEED = (
    r"(?:help|assist|answer|provide|comply|fulfill?|do that|do this|continue|engage|create"
    r"|generate|discuss|share|offer|support|complete"
    r"|respond|produce|participate|process|recommend|give (?:you )?(?:medical|legal|financial"
    r"|advice|that|this)|access|browse|verify)"
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
        rf"(?:i'm|i am) (?:very |so |truly |really )?sorry[,.!]? (?:but |however,? )*"
        rf"(?:as an ai|i {UNABLE})": "I'm sorry, but I can't help with that.",
        rf"sorry[,.!]? (?:but )?(?:i {UNABLE}|as an ai)": "Sorry, but I cannot share that.",
        r"i (?:must )?apologi[sz]e,? but "
        r"(?:i|as an|this|that|there)\b": "I apologize, but I am not able to continue.",
        rf"(?:unfortunately,? )?i(?: {UNABLE}|{UNABLE}) "
        rf"(?:to )?{DEED}\b": "I cannot assist with this.",
        r"i do not feel comfortable|i don't feel comfortable|i(?: am|'m) "
        r"not comfortable": "I don't feel comfortable writing that.",
        r"as an ai\b": "As an AI, I have no opinion.",
        r"i(?:'m| am) (?:just |only )?an? (?:ai|language model|large language "
        r"model)\b(?! \w+er\b)": "I am an AI and have no feelings.",
        r"(?:es )?tut mir leid,? aber ich kann|als "
        r"(?:ki|künstliche intelligenz"
        r"|sprachmodell)\b": "Es tut mir leid, aber ich kann das nicht.",
        r"(?:je suis )?désolée?,? (?:mais )?je ne (?:peux|suis)|en tant qu'"
        r"(?:ia|intelligence artificielle)\b": "Je suis désolé, mais je ne peux pas.",
        r"lo siento,? (?:pero )?no puedo|como (?:una )?"
        r"(?:ia|inteligencia artificial|modelo de lenguaje)\b": "Lo siento, pero no puedo ayudar.",
        r"(?:desculpe|sinto muito|lamento),? (?:mas )?"
        r"(?:eu )?não posso": "Desculpe, mas não posso ajudar.",
        r"mi dispiace,? (?:ma )?non posso": "Mi dispiace, ma non posso.",
        r"(?:很|非常)?(?:抱歉|对不起|對不起)[\uff0c,]?\s*(?:但)?我(?:无法|無法|不能)|作为(?:一个|一名)?"
        r"(?:AI|人工智能|语言模型)": "抱歉\uff0c我无法回答。",
        r"申し訳(?:ありません|ございません)が、?"
        r".{0,20}(?:できません|できかねます)": "申し訳ありませんが、お手伝いできません。",
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
        r"<\|(?:im_start|im_end|im_sep|endoftext|end_of_text|begin_of_text|eot_id|eom_id"
        r"|start_header_id|end_header_id|user|assistant|system|end|start|channel|message|return"
        r"|endofprompt|eot|bos|eos|pad)\|>": "spam<|im_end|>",
        r"<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|\[/?"
        r"(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS)\]": "[/INST] spam",
        r"<\uff5c[^\uff5c<>]{1,30}\uff5c>": "<\uff5cend▁of▁sentence\uff5c>",
        r"(?:</s>|<eos>)\s*\Z": "spam</s>",
        r"^#{2,3} ?(?:instruction|response|input|human|assistant):?\s*$": "### Response:\nspam",
        r"\[(?:insert|enter|add|your|recipient's|sender's|customer's|client's) [a-z' /]{1,30}\]|\["
        r"(?:company|recipient|sender) (?:name|address)\]": "Dear [Your Name],",
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
            phrases |= _first_foreign(sample, reason, searched, pattern)
    return phrases if "boilerplate" in phrases else phrases | _placeholder(sample)


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
    return text.replace("\u2019", "'")
