"""The chat template of MiniCPM-V 4.5: ChatML turns, tools, and a switch for thinking.

What it renders is fixed by the released model; the points that are easy to miss:

- `enable_thinking` true leaves a thought open, false closes an empty one, absent lets the model decide.
- A thought is shown only in assistant turns after the last real question: in the last turn always, be it empty, in
  earlier ones if there is one. Thoughts before that question are dropped.
- Tool results come as user turns, neighbouring ones in one turn, and are no question.
- Content may be a string or a list of blocks; blocks are lines, and an image or video block is its placeholder.
"""

IMAGE_PLACEHOLDER = "(<image>./</image>)"
"""What one image is in rendered text, before it is expanded to the tokens of its slices."""
VIDEO_PLACEHOLDER = "(<video>./</video>)"
"""What one video is in rendered text, before it is expanded to the tokens of its packages."""

_MACROS = r"""
{%- macro flat(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- elif content -%}
    {%- for block in content -%}
      {{- '' if loop.first else '\n' -}}
      {%- if block is string -%}{{- block -}}
      {%- elif block.type == 'text' -%}{{- block.text -}}
      {%- elif block.type in ['image', 'image_url'] -%}{{- '(<image>./</image>)' -}}
      {%- elif block.type == 'video' -%}{{- '(<video>./</video>)' -}}
      {%- else -%}{{- raise_exception('Cannot render a content block of type ' ~ block.type ~ '.') -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- macro call_json(call) -%}
  {%- set call = call.function or call -%}
  {%- set arguments = call.arguments if call.arguments is string else call.arguments | tojson -%}
  {{- '<tool_call>\n{"name": "' ~ call.name ~ '", "arguments": ' ~ arguments ~ '}\n</tool_call>' -}}
{%- endmacro -%}
"""

_OPENING = r"""
{%- set first = messages[0] if messages else {} -%}
{%- set preamble = flat(first.content) if first.role == 'system' else none -%}
{%- if tools -%}
  {{- '<|im_start|>system\n' ~ (preamble ~ '\n\n' if preamble is not none else '') -}}
  {{- '# Tools\n\nYou may call one or more functions to assist with the user query.\n\n' -}}
  {{- 'You are provided with function signatures within <tools></tools> XML tags:\n<tools>' -}}
  {%- for tool in tools -%}{{- '\n' ~ tool | tojson -}}{%- endfor -%}
  {{- '\n</tools>\n\nFor each function call, return a json object with function name and arguments ' -}}
  {{- 'within <tool_call></tool_call> XML tags:\n<tool_call>\n' -}}
  {{- '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n' -}}
{%- elif preamble is not none -%}
  {{- '<|im_start|>system\n' ~ preamble ~ '<|im_end|>\n' -}}
{%- endif -%}
"""

_LAST_QUESTION = r"""
{%- set last = namespace(question=messages | length - 1) -%}
{%- for message in messages -%}
  {%- set said = flat(message.content) -%}
  {%- if message.role == 'user' and not (said.startswith('<tool_response>') and said.endswith('</tool_response>')) -%}
    {%- set last.question = loop.index0 -%}
  {%- endif -%}
{%- endfor -%}
"""

_TURNS = r"""
{%- for message in messages -%}
  {%- set said = flat(message.content) -%}
  {%- if message.role == 'user' or message.role == 'system' -%}
    {%- if message.role == 'user' or not loop.first -%}
      {{- '<|im_start|>' ~ message.role ~ '\n' ~ said ~ '<|im_end|>\n' -}}
    {%- endif -%}
  {%- elif message.role == 'assistant' -%}
    {%- set thought = '' -%}
    {%- if message.reasoning_content is defined and message.reasoning_content is not none -%}
      {%- set thought = message.reasoning_content -%}
    {%- elif '</think>' in said -%}
      {%- set thought = said.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') -%}
      {%- set said = said.split('</think>')[-1].lstrip('\n') -%}
    {%- endif -%}
    {{- '<|im_start|>assistant\n' -}}
    {%- if loop.index0 > last.question and (loop.last or thought) -%}
      {{- '<think>\n' ~ thought.strip('\n') ~ '\n</think>\n\n' ~ said.lstrip('\n') -}}
    {%- else -%}
      {{- said -}}
    {%- endif -%}
    {%- for call in message.tool_calls or [] -%}
      {{- ('\n' if said or not loop.first else '') ~ call_json(call) -}}
    {%- endfor -%}
    {{- '<|im_end|>\n' -}}
  {%- elif message.role == 'tool' -%}
    {%- if loop.first or loop.previtem.role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
    {{- '\n<tool_response>\n' ~ said ~ '\n</tool_response>' -}}
    {%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\n' -}}{%- endif -%}
  {%- else -%}
    {{- raise_exception('Cannot render a turn of role ' ~ message.role ~ '.') -}}
  {%- endif -%}
{%- endfor -%}
"""

_CLOSING = r"""
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
  {%- if enable_thinking is defined and enable_thinking is true -%}{{- '<think>\n' -}}{%- endif -%}
  {%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}
{%- endif -%}
"""

# Without the outer newlines of each part: text between tags would be rendered.
CHAT_TEMPLATE = "\n".join(part.strip("\n") for part in (_MACROS, _OPENING, _LAST_QUESTION, _TURNS, _CLOSING))
"""The Jinja source; needs `messages`, knows `tools`, `add_generation_prompt` and `enable_thinking`."""
