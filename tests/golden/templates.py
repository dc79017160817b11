"""Chat templates in the manner of the published families, written from their documented behaviour."""

# Nemotron Nano 2: the last /think or /no_think wins and both are deleted; the system header is always there;
# a final assistant message is reopened after the generation prompt.
NANO_V2 = r"""
{%- set ns = namespace(thinking=true, reopened='') -%}
{%- for message in messages -%}
{%- if message['role'] in ['system', 'user'] -%}
{%- if '/think' in message['content'] -%}{%- set ns.thinking = true -%}
{%- elif '/no_think' in message['content'] -%}{%- set ns.thinking = false -%}{%- endif -%}
{%- endif -%}
{%- endfor -%}
{{- '<SPECIAL_10>System\n' -}}
{%- if messages[0]['role'] == 'system' -%}
{{- messages[0]['content'].replace('/think', '').replace('/no_think', '').strip() -}}
{%- set messages = messages[1:] -%}
{%- endif -%}
{%- if tools -%}
{{- '\nYou can use the following tools:\n<AVAILABLE_TOOLS>[' -}}
{%- for tool in tools -%}
{{- (tool.function if tool.function is defined else tool) | tojson -}}{{- ', ' if not loop.last else '' -}}
{%- endfor -%}
{{- ']</AVAILABLE_TOOLS>' -}}
{%- endif -%}
{{- '\n' -}}
{%- if messages and messages[-1]['role'] == 'assistant' -%}
{%- set ns.reopened = messages[-1]['content'].strip() -%}
{%- set messages = messages[:-1] -%}
{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- '<SPECIAL_11>User\n' + message['content'].replace('/think', '').replace('/no_think', '').strip() + '\n' -}}
{%- elif message['role'] == 'tool' -%}
{{- '<SPECIAL_11>User\n<TOOL_RESPONSE>[' + message['content'] + ']</TOOL_RESPONSE>\n' -}}
{%- elif message['role'] == 'assistant' -%}
{{- '<SPECIAL_11>Assistant\n' + message['content'].split('</think>')[-1].strip() + '\n<SPECIAL_12>\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt or ns.reopened -%}
{{- '<SPECIAL_11>Assistant\n' + ('<think>\n' if ns.thinking else '<think></think>') + ns.reopened -}}
{%- endif -%}
""".strip()

# Llama-Nemotron v1: always a system header; past thoughts are cut; the model writes <think> itself.
LLAMA_NEMOTRON = r"""
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}
{%- set system_message = messages[0]['content'] | trim -%}
{%- set messages = messages[1:] -%}
{%- else -%}
{%- set system_message = '' -%}
{%- endif -%}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' + system_message + '<|eot_id|>' -}}
{%- for message in messages -%}
{%- set content = message['content'] -%}
{%- if message['role'] == 'assistant' and '</think>' in content -%}
{%- set content = content.split('</think>')[-1] -%}
{%- endif -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
{%- endif -%}
""".strip()

CHATML = r"""
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%}
""".strip()
