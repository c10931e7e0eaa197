{%- from "columns" import code_joins, codes %}
{%- from "bid" import entered -%}
{%- from "fate_costs" import dear, cheap %}
-- What the reduction needs of each row, in plain types: numbers without a value are NULL here and NaN in numpy (cheaper
-- than coalesce), labels 2 for none. Only what the reader asks for is computed.
-- row: won, undecidable, priced, lost, in bits; policy_<i>: entered, decided win, counted win, unknown win, in bits.
-- logged: what the log's own bid says (spec section 5, Fidelity), in bits: comparable, it wins the same auction, a loss not
-- about price, there is one, the baseline's recomputed bid differs by more than 1%, it stands beside the price of a win, it
-- is that price.
select
  {%- if bidders %}
  cast(cast(won as utinyint) + 2 * cast(undecidable as utinyint) + 4 * cast(price is not null as utinyint)
    + 8 * cast(lost as utinyint) as utinyint) as row,
  {%- if has_bid %}
  cast(cast(not undecidable and (bid_log is not null or won){{ ' and won_logged is not null' if has_win }} as utinyint)
    + 2 * cast(coalesce(bid_log {{ '>' if ties_lose else '>=' }} price, bid_log is not null and won) as utinyint)
    + 4 * cast(blocked as utinyint)
    + 8 * cast(bid_log is not null as utinyint)
    + 16 * cast(bid_log is not null and not coalesce({{ entered(bidders[0], any_first_price) }} and
        abs({{ bidders[0].limited }} - bid_log) <= 0.01e0 * bid_log, false) as utinyint)
    + 32 * cast(won and price is not null and bid_log is not null as utinyint)
    + 64 * cast(won and coalesce(price = bid_log, false) as utinyint) as utinyint) as logged,
  {%- if any_first_price %}
  cast(floor(least(coalesce(case when first_price then bid_log else price end, 0e0) * w, 9e9) * 1e9 + 0.5e0) as bigint) as paid,
  {%- endif %}
  {%- endif %}
  price,
  {%- endif %}
  coalesce(cast(floor(price * w * 1e9 + 0.5e0) as bigint), 0) as money,
  {%- if weighted %}
  w, wi,
  {%- endif %}
  {%- if has_click %}
  coalesce(cast(click as utinyint), 2) as click,
  {%- endif %}
  {%- if has_conversion %}
  conversion,
  {%- endif %}
  {%- if value and bidders %}
  coalesce({{ value }}, 0e0) as value,
  {%- endif %}
  {%- if any_first_price and (bidders or starts) %}
  cast(first_price as utinyint) as first_price,
  {%- endif %}
  {%- for label in labels %}
  coalesce(cast(y_{{ label }} as utinyint), 2) as y_{{ label }},
  {%- endfor %}
  {%- for b in bidders %}
  cast(cast(e_{{ b.key }} as utinyint) + 2 * cast(d_{{ b.key }} as utinyint) + 4 * cast(o_{{ b.key }} as utinyint)
    + 8 * cast(u_{{ b.key }} as utinyint) as utinyint) as policy_{{ b.policy }},
  {%- if any_first_price %}
  cost_{{ b.key }} as cost_{{ b.policy }},
  {%- endif %}
  bid_{{ b.key }} as bid_{{ b.policy }},
  {%- endfor %}
  {%- for s in starts %}
  {{ s.sql }} as start_{{ s.policy }},
  {%- if s.raw %}
  {{ s.raw }} as raw_{{ s.policy }},
  {%- endif %}
  {%- endfor %}
  {%- for b in fates %}
  {%- if dearer %}
  case when u_{{ b.key }} then {{ dear(b.key) }} else 0 end as dear_{{ b.policy }},
  case when u_{{ b.key }} then {{ cheap(b.key) }} else 0 end as cheap_{{ b.policy }},
  {%- endif %}
  {%- endfor %}
  {%- for target in targets %}
  {{ target }},
  {%- endfor %}
  {%- for i, p in sources %}
  {{ p }} as score_{{ i }},
  {%- endfor %}
  {{- codes(segments) }}
  {{ unit }}
from {{ outcomes }} as o
{{- code_joins(segments) }}
{%- if where %}
where {{ where }}
{%- endif %}
