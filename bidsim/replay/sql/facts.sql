-- What the log says of each row, before any policy: price with floor, labels that were observed, validity.
-- isfinite stands before every comparison: Parquet statistics leave NaN out, and the engine folds `x <= 1` to true by them.
-- Invalid values (negative or NaN prices and weights, labels that are none) are never used; the census counts them.
{%- set paid = 'greatest(price_logged, case when isfinite(floor_logged) then floor_logged end)' if has_floor else 'price_logged' %}
with checked as (
  select *,
    weight_logged as w,
    case when isfinite(price_logged) and price_logged >= 0e0 and {{ paid }}{{ ' * weight_logged' if weighted }} < 9e9
      then {{ paid }} end as price,
    case when isfinite(bid_logged) and bid_logged > 0e0 then bid_logged end as bid_log,
    {{ 'coalesce(isfinite(won_logged) and won_logged <> 0e0, false)' if has_win else 'true' }} as won,
    {{ 'coalesce(isfinite(won_logged) and won_logged = 0e0, false)' if has_win else 'false' }} as lost,
    case when isfinite(click_logged) and click_logged in (0e0, 1e0) then click_logged end as click,
    case when isfinite(conversion_logged) and conversion_logged >= 0e0 then conversion_logged
         {%- if has_click %}
         when conversion_logged is null and isfinite(click_logged) and click_logged = 0e0 then 0e0
         {%- endif %}
    end as conversion
  from {{ rows }}
  {%- if weighted %}
  where isfinite(weight_logged) and weight_logged >= 0e0 and weight_logged <= 1048576e0
  {%- endif %}
)
select *,
  {{ 'cast(floor(w * 4294967296e0 + 0.5e0) as bigint)' if weighted else '1::bigint' }} as wi,
  -- OpenRTB loss reasons about price: lost to a higher bid, below the floor. Any other loss is not won by bidding more.
  {{ 'coalesce(lost and isfinite(loss_reason_logged) and loss_reason_logged not in (100e0, 101e0, 102e0), false)'
     if has_loss_reason else 'false' }} as blocked,
  won {{ 'and click is not null' if has_click }} {{ 'and conversion is not null' if has_conversion }} as observed,
  -- Neither a price nor a logged result; or, in second price, a win whose price is missing: what it paid is unknown.
  price is null and not lost{{ ' and not (won and first_price)' if any_first_price }} as undecidable,
  case when won then click end as y_ctr,
  case when won and click = 1e0 {{ 'and mature' if ripening }} then cast(conversion > 0e0 as double) end as y_cvr,
  case when won {{ 'and mature' if ripening }} then cast(conversion > 0e0 as double) end as y_ctcvr,
  case when isfinite(target_cpc_logged) then target_cpc_logged end as target_cpc,
  case when isfinite(target_cpa_logged) then target_cpa_logged end as target_cpa,
  case when isfinite(daily_budget_logged) then daily_budget_logged end as daily_budget
  {%- for p in predictions %},
  case when isfinite({{ p.column }}) and {{ p.column }} >= 0e0 and {{ p.column }} <= 1e0 then {{ p.column }} end as {{ p.valid }}
  {%- endfor %}
from checked
