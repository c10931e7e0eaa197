-- Steps 5 and 6. Would this bid win, what would it pay, and can that be known from the log?
-- wins: decided and won. unknown: an unknown win. pay: 1e-9 currency per 1000 impressions times the weight, exact.
-- bar: what the money left must reach for the bid to win, in the same unit (for budgets that cap bids).
-- In second price a row without a price was lost, or nobody bids on it (facts.sql, undecidable).
select *
  {%- for b in bidders %},
  {%- if any_first_price %}
  coalesce(not blocked and case
    when price is not null then bid_{{ b.key }} {{ '>' if ties_lose else '>=' }} price
    when won then first_price and bid_{{ b.key }} >= bid_log
    else false end, false) as wins_{{ b.key }},
  coalesce(not blocked and price is null and bid_{{ b.key }} is not null and case
    when won then coalesce(bid_{{ b.key }} < bid_log, true)
    when lost then bid_{{ b.key }} > coalesce(bid_log, 0e0)
    else false end, false) as unknown_{{ b.key }},
  {%- else %}
  coalesce({{ 'not blocked and ' if has_loss_reason }}bid_{{ b.key }} {{ '>' if ties_lose else '>=' }} price, false) as wins_{{ b.key }},
  price is null and {{ 'not blocked and ' if has_loss_reason }}coalesce(bid_{{ b.key }} > coalesce(bid_log, 0e0), false) as unknown_{{ b.key }},
  {%- endif %}
  case when bid_{{ b.key }} is null then 0
    {%- if any_first_price %}
    when first_price then cast(floor(bid_{{ b.key }} * w * 1e9 + 0.5e0) as bigint)
    {%- endif %}
    when price is null then 0
    else cast(floor(price * w * 1e9 + 0.5e0) as bigint) end as pay_{{ b.key }}
  {%- endfor %}
  {%- if budgeted %},
  -- A bid equal to the logged one, which won, wins as it did, whatever ties do.
  case when price is not null then cast(floor(price * w * 1e9 + 0.5e0) as bigint)
    else cast(floor(least(coalesce(bid_log, 0e0) * w, 9e9) * 1e9 + 0.5e0) as bigint) {{ '- 1' if ties_lose }} end as bar
  {%- endif %}
from {{ bids }}
