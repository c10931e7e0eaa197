-- Prices seen, and bids that only bound them, by campaign and cell of the grid in statistics/winning.py: what win curves
-- are estimated from. kind: 0 a known price, 1 a loss at this bid, 2 a win at this bid without a known price (first price).
with rows as (
  select {{ 'c.code' if campaigns is not none else '0::integer' }} as code, coalesce(first_price, false) as first_price, wi,
    case when price is not null then 0 when lost then 1 else 2 end as kind,
    case when price is not null then price else bid_log end as x
  from facts as f
  {%- if campaigns is not none %}
  left join codes_{{ campaigns }} as c on f.{{ column }} is not distinct from c.value
  {%- endif %}
  where not undecidable and not blocked and (price is not null or (bid_log is not null and (lost or won)))
)
select code, first_price, kind,
  case when x <= 0e0 then 0
    else cast(greatest(1, least({{ cells }}, ceil((log2(x) - {{ lowest }}) * {{ per_octave }}))) as integer) end as cell,
  sum(wi) as weight,
  count(*) as n
from rows
group by all
order by all
