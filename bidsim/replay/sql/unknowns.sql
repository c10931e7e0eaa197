{%- from "columns" import code_joins, codes, labels_and_scores %}
{%- from "fate_costs" import dear, cheap, floor_price %}
-- The rows whose fate the log does not show (spec 3.6), and what they could have cost each policy.
-- unknown_<i>: 1 an unknown win, 2 a win whose outcome is unknown. dear_<i>, cheap_<i>: 1e-9 CPM times the weight; an
-- unknown win of a lost auction costs at most the policy's bid and at least the logged bid that lost (and the floor);
-- where the bid itself is paid, or the price is known, both are the same.
select
  {%- if weighted %}
  w, wi,
  {%- endif %}
  {%- if expected %}
  coalesce(cast(floor(price * w * 1e9 + 0.5e0) as bigint), 0) as money,
  cast(coalesce(first_price, false) as utinyint) as first_price,
  cast(won as utinyint) as won,
  bid_log,
  {%- if has_floor %}
  {{ floor_price() }} as floor_cpm,
  {%- endif %}
  unit,
  {%- for b in bidders %}
  bid_{{ b.key }} as bid_{{ b.policy }},
  {%- endfor %}
  {%- endif %}
  {%- for b in bidders %}
  cast(case when u_{{ b.key }} then 1 when d_{{ b.key }} and not o_{{ b.key }} then 2 else 0 end as utinyint) as unknown_{{ b.policy }},
  case when u_{{ b.key }} then {{ dear(b.key) }} else cost_{{ b.key }} end as dear_{{ b.policy }},
  case when u_{{ b.key }} then {{ cheap(b.key) }} else cost_{{ b.key }} end as cheap_{{ b.policy }},
  {%- endfor %}
  {{- labels_and_scores(sources) }}
  {{- codes(segments) }}
  target_cpc, target_cpa
from {{ outcomes }} as o
cross join {{ barrier }}
{{- code_joins(segments) }}
-- Where the log shows price and outcome nothing is unknown: said first, since the scan itself can leave such rows out.
-- What the policies' bids decide is asked behind a join, so that no optimizer moves it down to the scan: there each mention
-- of a bid would be reckoned anew, a hundred times a row.
where not (observed and price is not null)
  and case when {{ barrier }}.yes then
  {%- for b in bidders %}{{ ' or' if not loop.first }} u_{{ b.key }} or (d_{{ b.key }} and not o_{{ b.key }}){% endfor %} end
