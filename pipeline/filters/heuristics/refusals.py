# ruff: noqa: RUF001  (letters of other scripts look like Latin ones)
"""Openings of refusals in languages other than English.

A refusal has three parts: an apology, "cannot", and the deed of an assistant that it cannot do,
such as help or answer. Without the deed it may be a person's message ("Es tut mir leid, aber ich
kann am Montag nicht kommen").
"""

from typing import NamedTuple


class Refusal(NamedTuple):
    """A refusal in one language: regular expressions, an example, and a model's word for itself."""

    sorry: str
    cannot: str
    deed: str
    example: str
    as_an_ai: str = ""

    def expression(self) -> str:
        """Return the regular expression of the opening; the deed comes within 40 characters."""
        opening = rf"(?:{self.sorry})[,.!\u060c]? (?:{self.cannot})"
        refusal = rf"{opening}[^.!?\n]{{0,40}}(?:{self.deed})"
        return f"{refusal}|{self.as_an_ai}" if self.as_an_ai else refusal


SPACED = (
    Refusal(
        r"(?:je suis |je )?(?:vraiment |sincèrement )?(?:désolée?|je m'excuse"
        r"|malheureusement|je regrette|j'ai (?:bien )?peur de)",
        r"(?:mais )?(?:je )?ne (?:peux|suis|puis|pas pouvoir)",
        r"aider|assister|répondre|fournir|traiter|satisfaire|faire (?:cela|ça)"
        r"|pas\s*[.!]",
        "Je suis désolé, mais je ne peux pas.",
        r"en tant qu'(?:ia|intelligence artificielle|assistant)\b",
    ),
    Refusal(
        r"lo siento(?: mucho)?|lamentablemente|lo lamento|perdón|disculpa"
        r"|me temo que",
        r"(?:pero )?no (?:puedo|me es posible)",
        r"ayudar\w*|asistir\w*|responder|proporcionar|cumplir|hacer (?:eso|esto)",
        "Lo siento, pero no puedo ayudar.",
        r"como (?:una )?(?:ia|inteligencia artificial|modelo de lenguaje)\b",
    ),
    Refusal(
        r"(?:me )?(?:desculpe?|sinto muito|lamento|infelizmente)",
        r"(?:mas )?(?:eu )?não (?:posso|consigo)",
        r"ajudar|ajudá-l[oa]|auxiliar|responder|fornecer|atender|fazer isso",
        "Desculpe, mas não posso ajudar.",
        r"como (?:uma )?(?:ia|inteligência artificial|modelo de linguagem)\b",
    ),
    Refusal(
        r"mi dispiace|purtroppo|spiacente|mi scuso",
        r"(?:ma )?non (?:posso|sono in grado di)",
        r"aiutar\w*|assister\w*|risponder\w*|fornir\w*|soddisfare|farlo"
        r"|fare questo|(?<=posso)\s*[.!]",
        "Mi dispiace, ma non posso.",
        r"come (?:una )?(?:ia|intelligenza artificiale|modello linguistico)\b",
    ),
    Refusal(
        r"het spijt me|sorry|helaas",
        r"(?:maar )?(?:ik kan|kan ik|daar kan ik|hier kan ik)",
        r"helpen|assisteren|beantwoorden|voldoen",
        "Het spijt me, maar ik kan u niet helpen.",
        r"als (?:een )?(?:ai|taalmodel)\b",
    ),
    Refusal(
        r"к сожалению|извините|простите|прошу прощения|мне жаль",
        r"(?:но )?я не (?:могу|в состоянии|способ\w+)",
        r"помоч\w*|ответить|выполнить|предоставить|обсуждать|это сделать"
        r"|сделать это",
        "К сожалению, я не могу помочь.",
        r"как (?:ии|искусственный интеллект|языковая модель)\b",
    ),
    Refusal(
        r"на жаль|вибачте|перепрошую",
        r"(?:але )?я не (?:можу|в змозі)",
        r"допомогти|відповісти|виконати|надати",
        "На жаль, я не можу допомогти.",
    ),
    Refusal(
        r"przepraszam|niestety|przykro mi",
        r"(?:ale )?nie (?:mogę|jestem w stanie)",
        r"pomóc|odpowiedzieć|spełnić|udzielić",
        "Przepraszam, ale nie mogę pomóc.",
    ),
    Refusal(
        r"omlouvám se|bohužel|je mi líto|promiňte",
        r"(?:ale )?(?:s tím |vám |s tímto )*(?:nemohu|nemůžu)",
        r"pomoci|pomoct|odpovědět|vyhovět",
        "Omlouvám se, ale nemohu pomoci.",
    ),
    Refusal(
        r"(?:jag är )?(?:ledsen|tyvärr)|förlåt|beklager|jeg beklager|desværre"
        r"|dessverre|undskyld|(?:jag|jeg) kan (?:tyvärr|desværre|dessverre)",
        r"(?:men )?(?:(?:jag|jeg) kan|kan (?:jag|jeg)|inte|ikke)",
        r"hjälpa|hjelpe|hjælpe|svara|svare",
        "Tyvärr kan jag inte hjälpa dig.",
    ),
    Refusal(
        r"olen pahoillani|valitettavasti|anteeksi",
        r"(?:mutta )?en voi",
        r"auttaa|vastata",
        "Valitettavasti en voi auttaa.",
    ),
    Refusal(
        r"üzgünüm|maalesef|özür dilerim",
        r"[^.!?\n]{0,40}",
        r"yardımcı olamam|yardımcı olamıyorum|yardım edemem|yanıtlayamam"
        r"|cevaplayamam",
        "Üzgünüm, ama yardımcı olamam.",
    ),
    Refusal(
        r"maaf|mohon maaf",
        r"(?:tetapi |tapi |namun )?saya tidak (?:dapat|bisa)",
        r"membantu|menjawab|memenuhi|memberikan",
        "Maaf, saya tidak dapat membantu.",
    ),
    Refusal(
        r"(?:tôi )?(?:rất )?(?:xin lỗi|tiếc)|rất tiếc",
        r"(?:nhưng )?tôi không thể",
        r"giúp|trả lời|hỗ trợ|cung cấp|thực hiện",
        "Xin lỗi, tôi không thể giúp.",
    ),
    Refusal(
        r"عذر[\u064b-\u0652]*ا[\u064b-\u0652]*|آسف|أنا آسف|للأسف|أعتذر",
        r"(?:و?لكن(?:ني|ي)? )?لا (?:أستطيع|يمكنني)",
        r"مساعد\w*|المساعدة|الإجابة|تقديم",
        "عذرًا، لا يمكنني المساعدة.",
    ),
    Refusal(
        r"מצטער(?:ת)?|אני מצטער(?:ת)?|סליחה",
        r"(?:אבל |אך )?(?:אני )?לא (?:יכול|יכולה)",
        r"לעזור|לסייע|לענות",
        "מצטער, אני לא יכול לעזור.",
    ),
    Refusal(
        r"λυπάμαι|συγγνώμη|δυστυχώς",
        r"(?:αλλά )?δεν μπορώ",
        r"βοηθήσω|απαντήσω",
        "Λυπάμαι, αλλά δεν μπορώ να βοηθήσω.",
    ),
    Refusal(
        r"îmi pare rău|din păcate|scuze",
        r"(?:dar )?nu (?:pot|te pot|vă pot)",
        r"ajut\w*|răspund\w*",
        "Îmi pare rău, dar nu pot ajuta.",
    ),
    Refusal(
        r"sajnálom|sajnos|elnézést",
        r"(?:de )?(?:ebben )?nem tudok",
        r"segíteni|válaszolni",
        "Sajnálom, de nem tudok segíteni.",
    ),
)
# Languages that do not fit Refusal (no spaces, another order): whole regular expression, example
OTHERS = {
    r"(?:es )?tut mir (?:sehr )?leid,? (?:aber |doch )?(?:dabei |das |hierbei |ich )+(?:kann"
    r"|darf)\b"
    r"[^.!?\n]{0,60}\b(?:helfen|weiterhelfen|beantworten|antworten|unterstützen|erfüllen"
    r"|bereitstellen"
    r"|(?:das|dies) (?:leider )?nicht(?: tun)?\s*[.!])|(?:leider )?(?:kann|darf) ich (?:dir "
    r"|ihnen )?"
    r"(?:dabei|damit|bei dieser anfrage|diese (?:frage|anfrage)|hierbei|leider)\b[^.!?\n]{0,40}\b"
    r"(?:nicht (?:\w+ )?(?:helfen|weiterhelfen|beantworten|unterstützen|erfüllen))|als "
    r"(?:ki|künstliche intelligenz"
    r"|sprachmodell)\b": "Es tut mir leid, aber ich kann das nicht.",
    r"(?:很|非常|实在)?(?:抱歉|对不起|對不起|遗憾)[\uff0c,\u3002!]?\s*(?:但|但是)?"
    r"(?:我|作为[^\u3002]{0,10}我)?(?:无法|無法|不能)[^\u3002!\n]{0,20}(?:帮|幫|协助|協助|回答|提供|满足"
    r"|滿足|处理|继续|讨论|完成)"
    r"|作为(?:一个|一名)?(?:AI|人工智能|语言模型)": "抱歉\uff0c我无法回答。",
    r"(?:申し訳(?:ありません|ございません)が|すみませんが|ごめんなさい)[、,\u3002]?.{0,30}"
    r"(?:お手伝い|お答え|回答|お応え|対応|提供|お力|支援).{0,10}(?:できません|できかねます|なれません)"
    r"": "申し訳ありませんが、お手伝いできません。",
    r"(?:죄송|미안)(?:합니다|하지만|합니다만|해요)[,.]?.{0,40}(?:도와|도움|답변|제공|응답|수행)"
    r".{0,15}(?:없|못|어렵|않)": "죄송합니다만, 도와드릴 수 없습니다.",
    r"(?:मुझे खेद है|क्षमा करें|माफ़ करें|माफ कीजिए|मुझे माफ़ करें)[,\u0964]?.{0,50}(?:मदद"
    r"|सहायता|उत्तर|जवाब)"
    r".{0,20}(?:नहीं|असमर्थ)": "मुझे खेद है, मैं मदद नहीं कर सकता।",
    r"(?:ขออภัย|ขอโทษ).{0,30}ไม่สามารถ.{0,20}(?:ช่วย|ตอบ|ให้)": "ขออภัย ฉันไม่สามารถช่วยได้",
}
PHRASES = OTHERS | {refusal.expression(): refusal.example for refusal in SPACED}
