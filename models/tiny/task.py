"""The task: sums of two to five numbers of three digits, asked in eight languages, worked column by column.

A thought adds one number to the running total. It names both, then the sums of the columns from the right, each with
the carry of the column before it, then the new total:

    347+285:12,13,6=632       7+5 = 12, 4+8+1 = 13, 3+2+1 = 6
    632+619:11,05,12=1251

The answer is the last total. Whoever does not think has to find all columns and carries at once.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

MOST_NUMBERS = 5
# One problem in so many is held out.
HELD_OUT_SHARE = 8

Numbers = tuple[int, ...]


# --- problems ----------------------------------------------------------------------------------------------------


def is_held_out(numbers: Numbers) -> bool:
    """Whether a problem is for tests only; the order of the numbers makes no other problem."""
    digest = hashlib.sha256("+".join(map(str, sorted(numbers))).encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_SHARE == 0


def draw_numbers(rng: random.Random, held_out: bool, most: int = MOST_NUMBERS) -> Numbers:
    """The numbers of a problem of the wanted half."""
    while True:
        numbers = tuple(rng.randint(100, 999) for _ in range(rng.randint(2, most)))
        if is_held_out(numbers) == held_out:
            return numbers


def worked(total: int, number: int) -> str:
    """One addition, column by column."""
    ones = total % 10 + number % 10
    tens = total // 10 % 10 + number // 10 % 10 + ones // 10
    hundreds = total // 100 + number // 100 + tens // 10
    return f"{total}+{number}:{ones:02},{tens:02},{hundreds}={hundreds}{tens % 10}{ones % 10}"


def steps(numbers: Numbers) -> list[str]:
    """The lines of the thoughts."""
    return [worked(sum(numbers[:n]), number) for n, number in enumerate(numbers) if n > 0]


# --- words -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Language:
    """How a language asks. `{sum}` is "1 + 2 + 3"; `{list}` is "1, 2 and 3"."""

    questions: tuple[str, ...]
    comma: str
    last: str
    opening: str


LANGUAGES = {
    "en": Language(
        ("What is {sum}?", "How much is {sum}?", "Compute {sum}.", "Add {list}.", "What is the sum of {list}?"),
        ", ",
        " and ",
        "Step by step:",
    ),
    "es": Language(
        ("¿Cuánto es {sum}?", "Calcula {sum}.", "Suma {list}.", "¿Cuál es la suma de {list}?"),
        ", ",
        " y ",
        "Paso a paso:",
    ),
    "de": Language(
        ("Was ist {sum}?", "Wie viel ist {sum}?", "Berechne {sum}.", "Addiere {list}."),
        ", ",
        " und ",
        "Schritt für Schritt:",
    ),
    "ru": Language(
        ("Сколько будет {sum}?", "Вычисли {sum}.", "Сложи {list}.", "Чему равна сумма {list}?"),
        ", ",
        " и ",
        "По шагам:",
    ),
    "zh": Language(
        ("{sum}等于多少？", "计算{sum}。", "求{list}的和。", "请把{list}加起来。"),
        "、",
        "和",
        "一步一步：",
    ),
    "ja": Language(
        ("{sum}はいくつですか？", "{sum}を計算してください。", "{list}の合計は？", "{list}を足してください。"),
        "、",
        "と",
        "順番に：",
    ),
    "ar": Language(
        ("كم يساوي {sum}؟", "احسب {sum}.", "اجمع {list}.", "ما مجموع {list}؟"),
        "، ",
        " و ",
        "خطوة بخطوة:",
    ),
    "hi": Language(
        ("{sum} कितना होता है?", "{sum} की गणना करो।", "{list} को जोड़ो।", "{list} का योग क्या है?"),
        ", ",
        " और ",
        "क्रम से:",
    ),
}

SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You are a careful calculator.",
    "Answer with the number alone.",
    "Responde solo con el número.",
    "Antworte nur mit der Zahl.",
    "Отвечай только числом.",
    "只回答数字。",
    "数字だけで答えてください。",
    "أجب بالرقم فقط.",
    "केवल संख्या में उत्तर दो।",
)


def ask(rng: random.Random, language: Language, numbers: Numbers) -> str:
    """A question for the sum, in one of the ways of a language."""
    plus = rng.choice((" + ", " + ", "+"))
    words = [str(n) for n in numbers]
    listed = language.comma.join(words[:-1]) + language.last + words[-1]
    return rng.choice(language.questions).format(sum=plus.join(words), list=listed)


@dataclass(frozen=True)
class Problem:
    """A question with its thoughts and its answer."""

    numbers: Numbers
    language: str
    question: str

    @property
    def thoughts(self) -> str:
        """The whole trace; every line ends with a newline."""
        return "".join(line + "\n" for line in [LANGUAGES[self.language].opening, *steps(self.numbers)])

    @property
    def answer(self) -> str:
        return str(sum(self.numbers))


def draw(rng: random.Random, held_out: bool, most: int = MOST_NUMBERS) -> Problem:
    """A problem of the wanted half, in any language."""
    numbers = draw_numbers(rng, held_out, most)
    language = rng.choice(list(LANGUAGES))
    return Problem(numbers, language, ask(rng, LANGUAGES[language], numbers))
