-- Second price without a budget: the multiplier at which each counted row's bid starts to win, in logarithmic cells.
-- Wins at multiplier m are the rows that start at or below m; cell c ends at 2^(c / {{ per_octave }}).
with starts as (
  select *
  {%- for b in bidders %},
    case when observed and price is not null and isfinite({{ b.raw }}) and {{ b.raw }} > 0e0 {{ 'and ' ~ b.reach if b.reach }}
      then greatest({{ b.bar }}, {{ b.min }}) / {{ b.raw }} end as start_{{ b.key }}
  {%- endfor %}
  from formulas
  where not undecidable and not blocked
)
select *
{%- for b in bidders %},
  case when start_{{ b.key }} is null then null
    when start_{{ b.key }} <= {{ lowest }} then {{ first }}
    else least(cast({{ 'floor' if ties_lose else 'ceil' }}(log2(start_{{ b.key }}) * {{ per_octave }}e0) as integer), {{ last }})
  end as cell_{{ b.key }}
{%- endfor %}
from starts
