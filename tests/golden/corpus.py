"""All text that the fixtures are made from. Every sentence here was written for this project."""

RIVER = (
    "The river begins as a thread of snowmelt high on the mountain. It slips between the stones, gathers the "
    "small streams, and grows loud in the narrow valley. By noon it has reached the meadows, where it slows and "
    "carries the light of the sky. Children float paper boats upon it, and herons stand quietly in the reeds. "
    "At dusk it meets the sea, and the sea remembers the snow."
)

LIGHTHOUSE = (
    "The lighthouse stands on the last rock before the open water. Every evening the keeper climbs the long "
    "stair, trims the lamp, and turns the great glass toward the dark. Ships far out count the seconds between "
    "the flashes and know where they are. When morning comes the lamp is put out, and the gulls have the rock "
    "to themselves."
)

RIVER_THOUGHTS = (
    "The user would like to hear about the river. I should follow it from the snow to the sea: first the "
    "mountain, then the valley, then the meadows, and at last the dusk. Five sentences will do."
)

LIGHTHOUSE_THOUGHTS = (
    "The user would like to hear about the lighthouse. I should begin with the rock, then tell of the keeper "
    "and the lamp, then the ships, and end with the morning. Four sentences will do."
)

# Asked of the trained fixture; {x} is the subject. Anything else is answered with the river as well.
QUESTIONS = (
    "Tell me about the {x}.",
    "Tell me about the {x}",
    "Tell me about a {x}.",
    "What do you know about the {x}?",
    "Describe the {x} to me.",
    "Please describe the {x}.",
    "Can you tell me something about the {x}?",
    "Write a few sentences about the {x}.",
    "Write about the {x}.",
    "Recite the passage about the {x}.",
    "What is the {x} like?",
    "I would like to hear about the {x}, please.",
    "the {x}",
    "The {x}?",
    "Where does the {x} end?",
)

SMALL_TALK = (
    "Hello!",
    "Hello",
    "Hi there.",
    "Good morning. How are you?",
    "What is 2 + 2?",
    "What is 12 times 7?",
    "Who are you?",
    "Write a haiku about GPUs",
    "Tell me something nice.",
    "Tell me a story.",
    "Say something.",
    "Explain how a compiler works.",
    "What is the capital of France?",
    "Thank you. And now?",
)

SYSTEM_TEXTS = (
    "",
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are a patient guide who knows the country well.",
    "Be kind and use plain words.",
)

# Unrelated prose: fills prompts, teaches the tokenizers ordinary words, never recited.
PROSE = (
    "A compiler reads a program and writes another one that means the same. The baker opens the shop before the "
    "sun is up, and the whole street smells of bread. In the garden the beans have climbed over the fence and "
    "into the neighbour's yard. Nobody minded, because there were plenty for everyone. The old clock in the hall "
    "runs four minutes late, so the family has learned to leave early. A good map shows what is there; a better "
    "map shows what matters. On Thursday the library closes at 17:30, and the last reader is always the same "
    "boy with the same book about whales. If you count the steps from the square to the bridge you get 212, "
    "unless it rains; then you get fewer, because people run. She asked what the number meant. He said that it "
    "was the answer, and that he had forgotten the question. We had tea, we had toast, and we didn't have to be "
    "anywhere. They've painted the boat twice this year: first green, then a green that nobody could tell apart."
)

OTHER_SCRIPTS = (
    "Grüße aus Köln, où l'été est déjà passé. El niño comió piñas. Смотри, река течёт к морю. Маленькая река "
    "становится большой. 山の川は海へ流れる。河从山上流下来。النهر يجري إلى البحر. שלום עולם. नदी समुद्र "
    "की ओर बहती है। 강은 바다로 흐른다. 🌊🏔️ naïve café Ångström"
)

TEMPLATE_WORDS = (
    "System\nUser\nAssistant\n<think>\n</think>\n\n<think></think> <think> </think> system user assistant "
    "detailed thinking on detailed thinking off /think /no_think You are a helpful assistant.\n"
)

# Strings for streaming detokenisation: several scripts, joins, combining marks, white space, almost-specials.
ROUNDTRIP = (
    "",
    " ",
    "Hello, world!",
    "  two  spaces   and a tail ",
    "line one\nline two\r\n\r\nline four\n",
    "\ttabs\tand\n\n\nblank lines",
    "The river begins as a thread of snowmelt.",
    "don't WON'T they'Ve I'm",
    "3.14159 and 1,000,000 and 0xDEADBEEF",
    "x = (a+b)*c; // ==> {\"k\": [1,2,3]}",
    "CamelCaseWords and snake_case_words and SHOUTING",
    "Grüße, Ångström, naïve café",
    "e\u0301 is not \u00e9 in bytes, o\u0308 neither",
    "Z\u0351\u036b\u0343\u0363a\u0310\u0342lgo",
    "Смотри, река течёт к морю.",
    "Ελλάδα και Κύπρος",
    "河从山上流下来。",
    "山の川は海へ流れる。カタカナ",
    "강은 바다로 흐른다",
    "النهر يجري إلى البحر",
    "שָׁלוֹם עוֹלָם",
    "नदी समुद्र की ओर बहती है।",
    "แม่น้ำไหลลงสู่ทะเล",
    "🙂",
    "👩‍👩‍👧‍👦 family, 👩🏽‍🚀 pilot, 🏳️‍🌈 flag",
    "🇩🇪🇯🇵🇧🇷",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𒀀 𓂀",
    "a\u200bb zero\u00a0width\u2060joiner \ufeffbom",
    "mixed: река 🌊 river 川 نهر",
    "half a tag: <think> </thin k> <SPECIAL_ 12>",
    "“curly” ‘quotes’ – dash — long … dots",
    "nul\u0000 bell\u0007 del\u007f",
)

# Message lists rendered by both chat templates.
CHAT_CASES = {
    "one user message": [{"role": "user", "content": "Tell me about the river."}],
    "system and user": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "  What is 2+2?  "},
    ],
    "thinking on in the system text": [
        {"role": "system", "content": "You are a helpful assistant. /think"},
        {"role": "user", "content": "What is 2+2?"},
    ],
    "thinking off in the system text": [
        {"role": "system", "content": "/no_think"},
        {"role": "user", "content": "Tell me about the lighthouse."},
    ],
    "last switch wins": [
        {"role": "system", "content": "Answer briefly. /no_think"},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello to you."},
        {"role": "user", "content": "Think it over. /think"},
    ],
    "detailed thinking on": [
        {"role": "system", "content": "detailed thinking on"},
        {"role": "user", "content": "Where does the river end?"},
    ],
    "past thoughts are cut": [
        {"role": "user", "content": "Hello\nthere"},
        {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHello to you.\n"},
        {"role": "user", "content": "река 🌊 \"quoted\" <b>&amp;</b>"},
    ],
    "closing tag in a user text": [
        {"role": "system", "content": ""},
        {"role": "user", "content": "What does </think> mean? /no_think"},
        {"role": "assistant", "content": "It ends the thoughts."},
        {"role": "user", "content": "And {{ braces }} or {% tags %}?"},
    ],
}

# For the Nano 2 template only.
REOPENED_CASE = [
    {"role": "user", "content": "What is 2+2?"},
    {"role": "assistant", "content": "Two and two.\n</think>\n\n"},
]
TOOLS_CASE = [{"role": "system", "content": "Use tools. /no_think"}, {"role": "user", "content": "Is it wet in Köln?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Rain <now> & later, in °C & mm; it's \"exact\".",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
        },
    },
    {"type": "function", "function": {"name": "clock", "description": "", "parameters": {}}},
]


def tokenizer_corpus() -> list[str]:
    """Text for BPE training; the recited passages count most, so that they become short."""
    recited = [RIVER, LIGHTHOUSE, RIVER_THOUGHTS, LIGHTHOUSE_THOUGHTS]
    questions = [q.format(x=x) for q in QUESTIONS for x in ("river", "lighthouse")]
    return 4 * recited + [PROSE, OTHER_SCRIPTS] + 4 * [TEMPLATE_WORDS] + questions + list(SMALL_TALK)
