-- The positively labelled rows of one head: their scores are the cut points of the exact AUC.
select {{ columns }}
from {{ outcomes }} as o
{%- for s in segments %}
left join codes_{{ loop.index0 }} as c{{ loop.index0 }} on o.{{ s.column }} is not distinct from c{{ loop.index0 }}.value
{%- endfor %}
where y_{{ head }} {{ '=' if positive else '<>' }} 1e0
