-- Rows that can't be used as they are, counted before anything is judged.
select
  count(*) as rows,
  count_if(not coalesce(isfinite(weight_logged) and weight_logged >= 0e0 and weight_logged <= 1048576e0, false)) as invalid_weights,
  count_if(coalesce(isfinite(weight_logged) and weight_logged >= 0e0 and weight_logged <= 1048576e0, false)
    and not coalesce(isfinite(price_logged) and price_logged >= 0e0
    and greatest(price_logged, case when isfinite(floor_logged) then floor_logged end) * weight_logged < 9e9, true)) as invalid_prices,
  count_if(not coalesce(isfinite(click_logged) and click_logged in (0e0, 1e0), true)) as invalid_clicks,
  count_if(not coalesce(isfinite(conversion_logged) and conversion_logged >= 0e0, true)) as invalid_conversions,
  count(price_logged) as prices_logged,
  count_if(unit is null) as unitless,
  count_if(isfinite(weight_logged) and weight_logged > 0e0 and weight_logged < 0.0009765625e0) as small_weights,
  count_if(first_price is null) as unknown_auction_types,
  count_if(coalesce(first_price, false)) as first_price_rows,
  count_if(conversion_logged = 0e0) as zero_conversions,
  count_if(click_logged = 1e0 and conversion_logged is null) as clicks_without_conversion_label,
  count_if(conversion_logged > 0e0) as conversions_logged,
  count_if(isfinite(conversion_logged) and conversion_logged > {{ many }}) as conversions_of_many,
  count_if(won_logged = 0e0 and click_logged = 1e0) as clicks_of_lost,
  count_if(won_logged = 0e0 and loss_reason_logged is not null) as losses_with_reason,
  count_if(won_logged = 0e0
    and loss_reason_logged in (100e0, 101e0, 102e0)) as losses_by_price,
  {%- for role in targets %}
  count_if(not coalesce(isfinite({{ role }}_logged) and {{ role }}_logged > 0e0, false)) as without_{{ role }},
  {%- endfor %}
  count_if(isfinite(weight_logged) and weight_logged > 0e0 and weight_logged < 1e0) as weights_below_one,
  count_if(isfinite(weight_logged) and weight_logged > 1e0) as weights_above_one,
  -- Totals of weights (2^-32) and of prices (1e-9 CPM), over rows that can be used.
  sum(case when isfinite(weight_logged) and weight_logged >= 0e0 and weight_logged <= 1048576e0
    then cast(floor(weight_logged * 4294967296e0 + 0.5e0) as bigint) end) as weights,
  sum(case when isfinite(weight_logged) and weight_logged >= 0e0 and weight_logged <= 1048576e0
      and isfinite(price_logged) and price_logged >= 0e0 and price_logged * weight_logged < 9e9
    then cast(floor(price_logged * weight_logged * 1e9 + 0.5e0) as bigint) end) as prices,
  sum(case when isfinite(weight_logged) and weight_logged >= 0e0 and weight_logged <= 1048576e0
      and isfinite(price_logged) and price_logged >= 0e0 and price_logged * weight_logged < 9e9
    then cast(floor(weight_logged * 4294967296e0 + 0.5e0) as bigint) end) as priced_weights
from {{ rows }}
