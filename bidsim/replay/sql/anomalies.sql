-- Campaigns whose CVR is impossible: more rows with a conversion than rows with a click, so their labels can't be right.
select campaign, count_if(isfinite(click_logged) and click_logged = 1e0) as clicks,
  count_if(isfinite(conversion_logged) and conversion_logged > 0e0) as conversions
from log_rows
group by campaign
having conversions > clicks
order by campaign
