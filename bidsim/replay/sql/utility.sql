-- Rows with an observed result and a price, as expected utility wants them: money in currency per impression.
select
  price / 1e3 as price,
  {{ value }} as value,
  first_price,
  w
  {%- for b in bidders %},
  bid_{{ b.key }} / 1e3 as bid_{{ loop.index0 }}
  {%- endfor %}
  {%- for s in segments %},
  c{{ loop.index0 }}.code as code_{{ loop.index0 }}
  {%- endfor %}
from {{ outcomes }} as o
{%- for s in segments %}
left join codes_{{ loop.index0 }} as c{{ loop.index0 }} on o.{{ s.column }} is not distinct from c{{ loop.index0 }}.value
{%- endfor %}
where price is not null and not undecidable and {{ label }} is not null
