"""The chat formats of the two families: templates, the switch for thinking, and what the assistant writes.

The templates are written from the documented behaviour of the published ones.
"""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

import task

# Nemotron Nano 2. The last /think or /no_think of a system or user text wins, and both are deleted; the system header
# is always there; tools stand in it; the results of tools make a user turn; earlier thoughts are cut; a last message
# of the assistant is opened again after the generation prompt.
NANO2 = r"""
{%- set ns = namespace(thinking=true, open='', reopens=false) -%}
{%- for message in messages if message.role in ['system', 'user'] -%}
{%- if '/think' in message.content -%}{%- set ns.thinking = true -%}
{%- elif '/no_think' in message.content -%}{%- set ns.thinking = false -%}{%- endif -%}
{%- endfor -%}
{{- '<SPECIAL_10>System\n' -}}
{%- set turns = messages -%}
{%- if messages and messages[0].role == 'system' -%}
{{- messages[0].content.replace('/think', '').replace('/no_think', '').strip() -}}
{%- set turns = messages[1:] -%}
{%- endif -%}
{%- if tools -%}
{{- '\nThese tools can be called:\n<AVAILABLE_TOOLS>[' -}}
{%- for tool in tools -%}
{{- (tool.function if tool.function is defined else tool) | tojson -}}{{- ', ' if not loop.last -}}
{%- endfor -%}
{{- ']</AVAILABLE_TOOLS>\nA call is written as\n<TOOLCALL>[{"name": "NAME", "arguments": {}}]</TOOLCALL>' -}}
{%- endif -%}
{{- '\n' -}}
{%- if turns and turns[-1].role == 'assistant' -%}
{%- set ns.reopens = true -%}
{%- set ns.open = turns[-1].content.strip() -%}
{%- set turns = turns[:-1] -%}
{%- endif -%}
{%- for message in turns -%}
{%- if message.role == 'user' -%}
{{- '<SPECIAL_11>User\n' + message.content.replace('/think', '').replace('/no_think', '').strip() + '\n' -}}
{%- elif message.role == 'tool' -%}
{%- if loop.first or loop.previtem.role != 'tool' -%}{{- '<SPECIAL_11>User\n<TOOL_RESPONSE>[' -}}{%- endif -%}
{{- message.content -}}
{{- ']</TOOL_RESPONSE>\n' if loop.last or loop.nextitem.role != 'tool' else ', ' -}}
{%- elif message.role == 'assistant' -%}
{{- '<SPECIAL_11>Assistant\n' + (message.content or '').split('</think>')[-1].strip() -}}
{%- if message.tool_calls -%}
{{- '<TOOLCALL>[' -}}
{%- for call in message.tool_calls -%}
{%- set called = call.function if call.function is defined else call -%}
{{- '{"name": ' + called.name | tojson + ', "arguments": ' -}}
{{- called.arguments if called.arguments is string else called.arguments | tojson -}}
{{- '}' + (', ' if not loop.last else '') -}}
{%- endfor -%}
{{- ']</TOOLCALL>' -}}
{%- endif -%}
{{- '\n<SPECIAL_12>\n' -}}
{%- else -%}
{{- raise_exception('this template has no role ' ~ message.role) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt or ns.reopens -%}
{{- '<SPECIAL_11>Assistant\n' + ('<think>\n' if ns.thinking else '<think></think>') + ns.open -}}
{%- endif -%}
""".strip()

# Llama-Nemotron. Always a system header; all texts are trimmed; earlier thoughts are cut; the model writes <think>.
LLAMA_NEMOTRON = r"""
{%- set turns = messages -%}
{%- set system = '' -%}
{%- if messages and messages[0].role == 'system' -%}
{%- set system = messages[0].content | trim -%}
{%- set turns = messages[1:] -%}
{%- endif -%}
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\n\n' + system + '<|eot_id|>' -}}
{%- for message in turns -%}
{%- set text = message.content -%}
{%- if message.role == 'assistant' -%}{%- set text = text.split('</think>')[-1] -%}{%- endif -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + text | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
{%- endif -%}
""".strip()


@dataclass(frozen=True)
class Family:
    """What the families do differently. `begin` is what the model writes itself to open its thoughts."""

    template: str
    bos_token: str
    begin: str
    end: str
    on: tuple[str, ...]
    off: tuple[str, ...]

    def prompt(self, messages: list[dict], **more: object) -> str:
        """The conversation as the model reads it, up to where it is to write."""
        return compiled(self.template).render(
            messages=messages, bos_token=self.bos_token, add_generation_prompt=True, **more
        )


@functools.cache
def compiled(template: str):
    """Jinja as transformers sets it up."""

    def raise_exception(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **more: json.dumps(value, ensure_ascii=False, **more)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(template)


FAMILIES = {
    "nano2-tiny": Family(NANO2, "<s>", "", "\n<SPECIAL_12>", ("/think", ""), ("/no_think",)),
    "nas-tiny": Family(
        LLAMA_NEMOTRON,
        "<|begin_of_text|>",
        "<think>\n",
        "<|eot_id|>",
        ("detailed thinking on",),
        ("detailed thinking off",),
    ),
}

CLOSE = "</think>\n\n"
# What may close thoughts that a budget cuts short. The first leaves the empty line to the model.
FORCED = ("</think>", "</think>\n\n", "\n</think>\n\n", ".\n</think>\n\n")


def messages_of(rng: random.Random, name: str, question: str, thinking: bool, past: list[dict]) -> list[dict]:
    """A conversation that ends with the question and says whether to think."""
    family = FAMILIES[name]
    switch = rng.choice(family.on if thinking else family.off)
    if name == "nas-tiny":
        # The switch is the whole system text; without any, nobody asked for thoughts.
        system = "" if not thinking and rng.random() < 0.15 else switch
    else:
        system = rng.choice(("", rng.choice(task.SYSTEM_TEXTS)))
        if switch and rng.random() < 0.3:
            question = f"{question} {switch}"
        else:
            system = f"{system} {switch}".strip()
    first = [{"role": "system", "content": system}] if system else []
    return [*first, *past, {"role": "user", "content": question}]
