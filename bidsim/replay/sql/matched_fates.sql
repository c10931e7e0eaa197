{%- from "columns" import code_joins, codes, labels_and_scores %}
{%- from "fate_costs" import cheap, dear, floor_price, whole %}
-- Rows without an observed outcome that some candidate wins, or may win, if its bids are multiplied by at most {{ most }}.
-- open: whether the price is unknown. start_<i>: the multiplier from which the row is won, or may be. cheap: the least that
-- it costs, 1e-9 CPM times the weight; full_<i>: an open row's bid at multiplier one, in the same unit; top_<i>: the
-- multiplier from which it is cut at the maximum, and capped_<i> that. unknown_0, dear_0, cheap_0: of the baseline's own
-- bid, see unknowns.sql.
select
  cast(price is null as utinyint) as open,
  case when price is null then {{ whole("greatest(coalesce(bid_log, 0e0), " ~ floor_price() ~ ")") }}
    else cast(floor(price * w * 1e9 + 0.5e0) as bigint) end as cheap,
  {%- for s in starts %}
  {{ s.sql }} as start_{{ s.policy }},
  case when price is null and isfinite({{ s.raw }}) then {{ whole(s.raw) }} else 0 end as full_{{ s.policy }},
  {%- if s.max is not none %}
  case when price is null and {{ s.raw }} > 0e0 then {{ s.max }} / {{ s.raw }} else 'nan'::double end as top_{{ s.policy }},
  {{ whole(s.max) }} as capped_{{ s.policy }},
  {%- endif %}
  {%- endfor %}
  cast(case when u_0 then 1 when d_0 and not o_0 then 2 else 0 end as utinyint) as unknown_0,
  case when u_0 then {{ dear("0") }} else cost_0 end as dear_0,
  case when u_0 then {{ cheap("0") }} else cost_0 end as cheap_0,
  {{- labels_and_scores(sources) }}
  {{- codes(segments) }}
  w
from {{ outcomes }} as o
{{- code_joins(segments) }}
where not (observed and price is not null) and not undecidable and not blocked
  and ({% for s in starts %}{{ ' or ' if not loop.first }}{{ s.sql }} <= {{ most }}{% endfor %})
