"""What a chat model says for form's sake, and a student would learn as part of the task: refusals, openers, closers, chat tokens.

The table below is all of it. A phrase counts only where such phrases stand: at the opening of the reply, the rationale or the answer, at
its close, or wherever a sentence begins. One that the seed's inputs hold too is the task's own (a letter to be rewritten may end in
"Let me know if you have any questions").
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

CLOSE = 240  # characters at the end of a part in which closers are looked for
SHOWN = 80

UNABLE = (  # pieces of the expressions below
    r"(?:can(?:no|')t|can not|am (?:unable|not able)|'m (?:unable|not able|not comfortable)|won't|will not|must decline|have to decline)"
)
DEED = (
    r"(?:help|assist|answer|provide|comply|fulfill?|do that|do this|continue|engage|create|generate|discuss|share|offer|support|complete"
    r"|respond|produce|participate|process|recommend|give (?:you )?(?:medical|legal|financial|advice|that|this)|access|browse|verify)"
)
MADE = r"(?:rewritten|revised|corrected|translated|improved|requested|edited|updated|final|polished|paraphrased|simplified)"
THING = (
    r"(?:answer|translation|summary|solution|response|rewrite|revision|version|breakdown|explanation|list|table|code|json|step-by-step"
    r"|analysis|classification|output)"
)

# (expression, case aside and with ' for every apostrophe; an example that it finds)
PHRASES: dict[tuple[Reason, Place], tuple[tuple[str, str], ...]] = {
    ("refused", "opening"): (
        (
            rf"(?:i'm|i am) (?:very |so |truly |really )?sorry[,.!]? (?:but |however,? )*(?:as an ai|i {UNABLE})",
            "I'm sorry, but I can't help with that.",
        ),
        (rf"sorry[,.!]? (?:but )?(?:i {UNABLE}|as an ai)", "Sorry, but I cannot share that."),
        (
            r"i (?:must )?apologi[sz]e,? but (?:i|as an|this|that|there)\b",
            "I apologize, but I am not able to continue.",
        ),
        (
            rf"(?:unfortunately,? )?i(?: {UNABLE}|{UNABLE}) (?:to )?{DEED}\b",
            "I cannot assist with this.",
        ),
        (
            r"i do not feel comfortable|i don't feel comfortable|i(?: am|'m) not comfortable",
            "I don't feel comfortable writing that.",
        ),
        (r"as an ai\b", "As an AI, I have no opinion."),
        (
            r"i(?:'m| am) (?:just |only )?an? (?:ai|language model|large language model)\b(?! \w+er\b)",
            "I am an AI and have no feelings.",
        ),
        (
            r"(?:es )?tut mir leid,? aber ich kann|als (?:ki|künstliche intelligenz|sprachmodell)\b",
            "Es tut mir leid, aber ich kann das nicht.",
        ),
        (
            r"(?:je suis )?désolée?,? (?:mais )?je ne (?:peux|suis)|en tant qu'(?:ia|intelligence artificielle)\b",
            "Je suis désolé, mais je ne peux pas.",
        ),
        (
            r"lo siento,? (?:pero )?no puedo|como (?:una )?(?:ia|inteligencia artificial|modelo de lenguaje)\b",
            "Lo siento, pero no puedo ayudar.",
        ),
        (
            r"(?:desculpe|sinto muito|lamento),? (?:mas )?(?:eu )?não posso",
            "Desculpe, mas não posso ajudar.",
        ),
        (r"mi dispiace,? (?:ma )?non posso", "Mi dispiace, ma non posso."),
        (
            r"(?:很|非常)?(?:抱歉|对不起|對不起)[\uff0c,]?\s*(?:但)?我(?:无法|無法|不能)|作为(?:一个|一名)?(?:AI|人工智能|语言模型)",
            "抱歉\uff0c我无法回答。",
        ),
        (
            r"申し訳(?:ありません|ございません)が、?.{0,20}(?:できません|できかねます)",
            "申し訳ありませんが、お手伝いできません。",
        ),
    ),
    ("boilerplate", "sentence"): (
        (
            r"as an ai(?: language)?(?: model| assistant)?,? i\b",
            "It is hot there. As an AI language model, I cannot feel it.",
        ),
        (r"as a (?:large )?language model,? i\b", "As a large language model, I was not there."),
    ),
    ("boilerplate", "anywhere"): (
        (
            r"\bi(?:'m| am) (?:just |only )?an? ai (?:language model|assistant|model)\b",
            "Remember that I'm just an AI model.",
        ),
        (
            r"\bi was (?:trained|created|developed) by (?:openai|anthropic|google|meta|alibaba|deepseek|mistral)\b",
            "I was created by OpenAI.",
        ),
        (
            r"\bmy (?:knowledge cut-?off|training (?:data|cut-?off))\b",
            "That is beyond my knowledge cutoff.",
        ),
        (
            r"\bas of my (?:last|latest|most recent) (?:knowledge |training )?(?:update|cut-?off|training)\b",
            "As of my last update, it is open.",
        ),
        (
            r"<\|(?:im_start|im_end|im_sep|endoftext|end_of_text|begin_of_text|eot_id|eom_id|start_header_id|end_header_id|user|assistant"
            r"|system|end|start|channel|message|return|endofprompt|eot|bos|eos|pad)\|>",
            "spam<|im_end|>",
        ),
        (
            r"<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS)\]",
            "[/INST] spam",
        ),
        (r"<\uff5c[^\uff5c<>]{1,30}\uff5c>", "<\uff5cend▁of▁sentence\uff5c>"),
        (r"(?:</s>|<eos>)\s*\Z", "spam</s>"),
        (r"^#{2,3} ?(?:instruction|response|input|human|assistant):?\s*$", "### Response:\nspam"),
        (
            r"\[(?:insert|enter|add|your|recipient's|sender's|customer's|client's) [a-z' /]{1,30}\]"
            r"|\[(?:company|recipient|sender) (?:name|address)\]",
            "Dear [Your Name],",
        ),
    ),
    ("boilerplate", "opening"): (
        (
            r"(?:sure|certainly|of course|absolutely|gladly|okay|ok|great|no problem)(?: thing)?[,.!:]+ (?:here(?:'s| is| are)\b"
            r"|i(?:'d| would) be|i(?:'ll| can| will) (?:help|be happy|gladly)|let(?:'s| me)\b|happy to)",
            "Sure, here's the answer.",
        ),
        (r"(?:certainly|absolutely|gladly|sure)!", "Certainly! The label is spam."),
        (
            r"(?:what |that's |that is )?(?:an? )?(?:great|good|excellent|interesting|fantastic) question[!.]",
            "Great question! Let us see.",
        ),
        (
            r"thank(?:s| you) for (?:your (?:question|query|request|message)|asking|reaching out|providing)\b",
            "Thank you for your question.",
        ),
        (
            r"i(?:'d| would) be (?:happy|glad|delighted) to\b|i'm (?:happy|glad|here) to (?:help|assist)",
            "I'd be happy to help you.",
        ),
        (
            rf"(?:here(?:'s| is| are)|below is) (?:the |your |a |an |my )?(?:{MADE} (?:\w+ ){{0,2}}\w+|{THING})\b[^.!?\n]{{0,60}}:\s",
            "Here is the rewritten text:\nHe left.",
        ),
        (
            r"based on the (?:information|context|text|passage|message|details) (?:provided|given|above|you)",
            "Based on the information provided, it is 4.",
        ),
    ),
    ("boilerplate", "close"): (
        (
            r"(?:i )?hope (?:this|that|it) (?:helps|was helpful|is helpful|clarifies|answers)",
            "It is 4. I hope this helps!",
        ),
        (
            r"(?:please )?let me know if (?:you(?:'d| would) like|you (?:have|need|want|require)|there(?:'s| is) anything|i can"
            r"|this (?:helps|works)|anything)",
            "It is 4. Let me know if you need anything else.",
        ),
        (
            r"(?:please )?(?:feel free to|don't hesitate to|do not hesitate to) (?:ask|reach out|contact|let me know)",
            "Feel free to ask me more.",
        ),
        (
            r"if you have any (?:other |more |further |additional )?(?:questions|concerns)",
            "If you have any further questions, just ask.",
        ),
        (
            r"(?:is there anything else|what else can i|how else can i|would you like me to|do you want me to)",
            "Is there anything else I can do for you?",
        ),
        (
            r"(?:i'm |i am )?(?:always )?happy to (?:help|assist)(?: you)?(?: further| more| with)?[.!]",
            "Happy to help!",
        ),
    ),
}
BEGINNINGS = {
    "opening": r"\A[\W_]*(?:{})",
    "close": r"(?:\A|[.!?\n:)])\W{{0,4}}(?:{})",
    "sentence": r"(?:\A|[.!?\n]\W{{0,4}})(?:{})",
    "anywhere": r"(?:{})",
}


def _together(reason: Reason, place: Place) -> re.Pattern[str]:
    shapes = "|".join(f"(?:{shape})" for shape, _ in PHRASES[reason, place])
    return re.compile(BEGINNINGS[place].format(shapes), re.IGNORECASE | re.MULTILINE)


SHAPES = {(reason, place): _together(reason, place) for reason, place in PHRASES}


def found(batch: Batch) -> list[dict[str, str] | None]:
    """For each sample the first refusal and the first boilerplate, by reason; None where there is neither, as mostly."""
    return [_found(sample) or None for sample in batch.samples]


def said(
    left: NDArray[np.int64], found: Sequence[dict[str, str] | None], reason: Reason
) -> dict[int, Verdict]:
    """refused: reply, rationale or answer opens with the words of a refusal. boilerplate: says something for form's sake, or has a chat
    token or an unfilled placeholder in it. The value: the words."""
    return {
        int(row): Verdict(reason, words[reason])
        for row in left
        if (words := found[row]) and reason in words
    }


def _found(sample: Sample) -> dict[str, str]:
    several = dict.fromkeys(
        (sample.text, sample.rationale, sample.answer)
    )  # the answer may be all of the text
    texts = [text.replace("\u2019", "'") for text in several if text]
    words: dict[str, str] = {}
    for (reason, place), shape in SHAPES.items():
        if reason not in words:
            words |= _foreign(
                sample,
                reason,
                (text[-CLOSE:] if place == "close" else text for text in texts),
                shape,
            )
    return words if "boilerplate" in words else words | _hole(sample)


def _foreign(
    sample: Sample, reason: Reason, texts: Iterable[str], shape: re.Pattern[str]
) -> dict[str, str]:
    """The first words of this shape that the inputs do not hold, by their reason."""
    said = dict.fromkeys(match.group() for text in texts for match in shape.finditer(text))
    return next(
        ({reason: words.strip()[:SHOWN]} for words in said if not _is_own(sample, words)), {}
    )


def _hole(sample: Sample) -> dict[str, str]:
    """A placeholder of the prompt, {{ name }}, in the reply."""
    if "{{" not in sample.text:
        return {}
    names = "|".join(map(re.escape, sample.seed.inputs))
    return _foreign(
        sample,
        "boilerplate",
        [sample.text],
        re.compile(rf"\{{\{{-?\s*(?:{names})\b[^{{}}\n]{{0,40}}\}}\}}"),
    )


def _is_own(sample: Sample, words: str) -> bool:
    return (
        words.strip(" \n.,!?:").casefold()
        in sample_text.input_text(sample).replace("\u2019", "'").casefold()
    )
