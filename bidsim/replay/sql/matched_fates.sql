{%- from "columns" import code_joins, codes, labels_and_scores %}
{%- from "fate_costs" import cheap, dear, floor_price, whole %}
-- Rows without an observed outcome that some candidate wins, or may win, if its bids are multiplied by at most {{ most }},
-- and wins of the log at an unknown price.
-- open: whether the price is unknown. start_<i>: the multiplier from which the row is won, or may be; close_<i>: from which
-- it is known to be won, with what it brings. raw_<i>: the bid at multiplier one before it is cut. cheap: the least that a
-- win costs in second price, 1e-9 CPM times the weight. unknown_0, dear_0, cheap_0: of the baseline's own bid, see
-- unknowns.sql.
select
  cast(price is null as utinyint) as open,
  {%- if any_first_price %}
  cast(first_price as utinyint) as first_price,
  {%- endif %}
  case when price is null then {{ whole("greatest(coalesce(bid_log, 0e0), " ~ floor_price() ~ ")") }}
    else cast(floor(price * w * 1e9 + 0.5e0) as bigint) end as cheap,
  {%- for s in starts %}
  {{ s.sql }} as start_{{ s.policy }},
  {{ s.raw }} as raw_{{ s.policy }},
  {%- if s.close %}
  {{ s.close }} as close_{{ s.policy }},
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
