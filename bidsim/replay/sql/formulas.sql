-- Step 3, first half. Each policy's formula, in currency per 1000 impressions, before multiplier and limits.
select *
  {%- for p in policies %},
  cast({{ p.formula_sql }} as double) as raw_{{ p.index }}
  {%- endfor %},
  {{ budget_amount or 'null::double' }} as budget_amount
from {{ facts }}
