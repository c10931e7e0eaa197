-- Campaigns whose CVR can't be right: more rows with a conversion than rows with a click, or a day on which it jumps
-- against all earlier days of the campaign: a two-proportion z statistic and a ratio, both beyond what the scenario
-- sets. A fall counts only where conversions are mature: until then every last day falls.
with daily as (
  select campaign, {{ 'cast(local_ts as date)' if timed else 'null::date' }} as day,
    count_if(isfinite(click_logged) and click_logged = 1e0) as clicks,
    count_if(isfinite(conversion_logged) and conversion_logged > 0e0) as conversions
  from {{ rows }}
  group by campaign, day
),
beside as (
  select *,
    cast(sum(clicks) over earlier as bigint) as clicks_before,
    cast(sum(conversions) over earlier as bigint) as conversions_before
  from daily
  where day is not null
  window earlier as (partition by campaign order by day rows between unbounded preceding and 1 preceding)
),
rated as (
  select *,
    conversions / clicks::double as rate,
    conversions_before / clicks_before::double as rate_before,
    (conversions + conversions_before) / (clicks + clicks_before)::double as pooled
  from beside
  where clicks > 0 and clicks_before > 0 and conversions <= clicks and conversions_before <= clicks_before
),
tested as (
  select *, (rate - rate_before) / sqrt(pooled * (1e0 - pooled) * (1e0 / clicks + 1e0 / clicks_before)) as z
  from rated
  where pooled > 0e0 and pooled < 1e0
),
jumps as (
  select campaign, min(day) as day, arg_min(rate, day) as rate, arg_min(rate_before, day) as rate_before
  from tested
  where (rate >= {{ jump.ratio }}::double * rate_before and z >= {{ jump.z }}::double
      and conversions >= {{ jump.min_conversions }} and clicks_before >= {{ jump.min_clicks }})
    {%- if falls %}
    or (rate_before >= {{ jump.ratio }}::double * rate and z <= -{{ jump.z }}::double
      and conversions_before >= {{ jump.min_conversions }} and clicks >= {{ jump.min_clicks }})
    {%- endif %}
  group by campaign
),
whole as (
  select campaign, cast(sum(clicks) as bigint) as clicks, cast(sum(conversions) as bigint) as conversions
  from daily
  group by campaign
)
select w.campaign, w.clicks, w.conversions, w.conversions > w.clicks as impossible,
  cast(j.day as varchar) as day, j.rate, j.rate_before
from whole as w
left join jumps as j on j.campaign is not distinct from w.campaign
where w.conversions > w.clicks or j.day is not null
order by w.campaign
