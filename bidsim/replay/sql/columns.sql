{#- Columns that several steps hand to Python, and the join that gives the codes of segment values. -#}
{%- macro labels_and_scores(sources) %}
  case when won then click end as click,
  case when won then conversion end as conversion,
  {%- for i, p in sources %}
  {{ p }} as score_{{ i }},
  {%- endfor %}
{%- endmacro %}
{%- macro codes(segments) %}
  {%- for s in segments %}
  c{{ loop.index0 }}.code as code_{{ loop.index0 }},
  {%- endfor %}
{%- endmacro %}
{%- macro code_joins(segments) %}
{%- for s in segments %}
left join codes_{{ loop.index0 }} as c{{ loop.index0 }} on o.{{ s.column }} is not distinct from c{{ loop.index0 }}.value
{%- endfor %}
{%- endmacro %}
