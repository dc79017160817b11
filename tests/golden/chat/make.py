"""cases.json: conversations rendered by transformers through the templates of this folder.

The templates are our own, written from the documented behaviour of the published ones:
    python make.py        # with transformers and jinja2 of ../requirements.txt; torch is not needed
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def system(text: str) -> dict:
    return {"role": "system", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


def call(name: str, arguments: object) -> dict:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Rain <now> & later, in °C; it's \"exact\".",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
        },
    },
    {"type": "function", "function": {"name": "clock", "description": "", "parameters": {}}},
]

CALLED = [
    system("Use tools."),
    user("Rain in Zürich?"),
    {
        "role": "assistant",
        "content": "<think>\nI ask.\n</think>\n\n",
        "tool_calls": [call("weather", {"place": "Zürich", "hours": 2.5}), call("clock", {})],
    },
    {"role": "tool", "content": '{"rain": true}'},
    {"role": "tool", "content": '"noon"'},
]

PAST = [
    system("  Be brief.  "),
    user(" Hello "),
    assistant("<think>\nA greeting. </think> Or two.\n</think>\n\nHello to you.\n"),
    user("река 🌊 <b>&amp;</b>"),
]

PLAIN = {
    "one message": {"messages": [user("What is 2+2?")]},
    "a system text": {"messages": [system("You are a helpful assistant."), user("What is 2+2?")]},
    "past thoughts": {"messages": PAST},
    "no generation prompt": {"messages": PAST, "add_generation_prompt": False},
}

WORDS = {
    "off in the system text": {"messages": [system("Be brief. /no_think"), user("Hello")]},
    "on in the system text": {"messages": [system("/think"), user("Hello")]},
}

CASES = {
    "nano-v2": PLAIN
    | WORDS
    | {
        "off in the user's text": {"messages": [user("Hello /no_think")]},
        "the last word decides": {
            "messages": [system("/no_think"), user("Hello"), assistant("Hello."), user("And now /think")]
        },
        "a closing tag is a word": {"messages": [system("/no_think"), user("What is </think>?")]},
        "tools": {"messages": [user("Rain?")], "tools": TOOLS},
        "calls and their results": {"messages": CALLED, "tools": TOOLS},
        "arguments as text": {
            "messages": [
                user("Rain?"),
                {"role": "assistant", "content": None, "tool_calls": [call("weather", '{"place":  "Ulm"}')]},
                {"role": "tool", "content": "1"},
                user("And?"),
            ]
        },
        "an answer to go on with": {"messages": [user("What is 2+2?"), assistant("Two and two.\n</think>\n\n")]},
    },
    "nano-v2-keyword": PLAIN
    | WORDS
    | {
        "off": {"messages": PAST, "enable_thinking": False},
        "on": {"messages": [user("Hello")], "enable_thinking": True},
    },
    "nemotron-h": PLAIN
    | {
        "on": {"messages": [system("{'reasoning': True}"), user("Hello")]},
        "off": {"messages": [system("Be brief. {'reasoning': False}"), user("Hello")]},
    },
    "llama-v1": PLAIN
    | {
        "on": {"messages": [system("detailed thinking on"), user("Be brief.\n\nHello")]},
        "off": {"messages": [system("detailed thinking off"), user("Hello")]},
        "a closing tag in the user's text": {"messages": [user("What is </think>?")]},
    },
    "super-v1.5": PLAIN | WORDS | {"calls and their results": {"messages": CALLED, "tools": TOOLS}},
    "generation": PLAIN,
    "python": {
        "methods, filters and loops": {
            "messages": [user("  A banana, a bar, ébène.  "), assistant("x"), user("y")],
            "tools": [{"name": "é<&>'\"", "z": [1, 2.5, 1e16, []], "a": {"on": True, "none": None}}],
        },
    },
}


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(HERE.parent / "llama")
    cases = []
    for template, named in CASES.items():
        source = (HERE / f"{template}.jinja").read_text()
        for name, conversation in named.items():
            arguments = {"add_generation_prompt": True} | conversation
            messages = arguments.pop("messages")
            rendered = tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, **arguments)
            cases.append({"template": template, "name": name, "conversation": conversation, "rendered": rendered})
    (HERE / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
