-- The log reduced to sums: one row for each value of each segment, each sum a whole number (see measures).
select
  {{ grouping }} as family
  {%- for s in segments %},
  {{ s.column }}
  {%- endfor %}
  {%- for m in measures %},
  sum({{ m.sql }}) as m{{ loop.index0 }}
  {%- endfor %}
from {{ outcomes }}
group by grouping sets (
  ()
  {%- for s in segments %}, ({{ s.column }})
  {%- endfor %}
)
