{%- from "columns" import labels_and_scores %}
{%- from "fate_costs" import cheap, dear, floor_price, whole %}
-- Rows that a policy wins or may win, in the budget's order, with what they cost it under each fate (spec 3.6).
-- kind_<i>: 1 a counted win, 2 a win whose outcome is unknown, 3 an unknown win. dear_<i>, cheap_<i>: see unknowns.sql.
-- bar_<i>: the money left that an unknown win at its cheapest needs; a bid cut to the logged one, which lost, loses too.
select
  campaign, period, {% if internal %}ordinal, {% endif %}budget_amount, coalesce(first_price, false) as first_price, w, wi, bar,
  {%- if paced %}
  elapsed, span,
  {%- endif %}
  {%- for b in bidders %}
  cast(case when unknown_{{ b.key }} then 3 when not wins_{{ b.key }} then 0 when observed then 1 else 2 end as utinyint) as kind_{{ b.policy }},
  case when wins_{{ b.key }} then pay_{{ b.key }} else 0 end as pay_{{ b.policy }},
  {{ dear(b.key) }} as dear_{{ b.policy }},
  {{ cheap(b.key) }} as cheap_{{ b.policy }},
  {{ whole("greatest(case when lost then coalesce(bid_log, 0e0) else 0e0 end, " ~ floor_price() ~ ")") }}
    + case when lost then 1 else 0 end as bar_{{ b.policy }},
  {%- endfor %}
  {{- labels_and_scores(sources) }}
  {%- for s in segments %}
  {{ s.column }},
  {%- endfor %}
  target_cpc, target_cpa
from {{ auctions }}
where {% for b in bidders %}{{ 'or ' if not loop.first }}wins_{{ b.key }} or unknown_{{ b.key }} {% endfor %}
