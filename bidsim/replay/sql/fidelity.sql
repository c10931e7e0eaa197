-- The logged bids replayed through the same auction, beside what the log says happened (spec section 5, Fidelity).
with replayed as (
  select *,
    coalesce(case when bid_log is null then false
      when price is not null then bid_log {{ '>' if ties_lose else '>=' }} price
      else won end, false) as wins
  from {{ outcomes }}
  where not undecidable and (bid_log is not null or won){{ ' and won_logged is not null' if has_win }}
)
select
  count(*) as rows,
  count_if(wins <> won and not (blocked and not won)) as mismatched,
  sum(case when won then wi else 0 end) as log_wins,
  sum(case when wins and not blocked then wi else 0 end) as replayed_wins,
  sum(case when won then {{ paid }} else 0 end) as log_spend,
  sum(case when wins and not blocked then {{ paid }} else 0 end) as replayed_spend,
  sum(case when won then {{ clicks }} else 0 end) as log_clicks,
  sum(case when wins and won then {{ clicks }} else 0 end) as replayed_clicks,
  sum(case when won then {{ conversions }} else 0 end) as log_conversions,
  sum(case when wins and won then {{ conversions }} else 0 end) as replayed_conversions,
  count_if(bid_log is not null) as bid_rows,
  count_if(bid_log is not null and not coalesce(abs(bid_0 - bid_log) <= 0.01e0 * bid_log, false)) as drifted
from replayed
