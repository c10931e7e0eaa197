-- Step 4. Of a policy's bids in one request only the highest stays; ties go to the smallest campaign id (then to the
-- row that stands first in the log). A row without a request is alone. place: the rows of a request in that order.
select * replace (
  {%- for b in bidders %}
  case when request is null or (bid_{{ b.key }} = top_{{ b.key }} and place = first_{{ b.key }}) then bid_{{ b.key }} end
    as bid_{{ b.key }}{{ ',' if not loop.last }}
  {%- endfor %}
)
from (
  select *
    {%- for b in bidders %},
    min(case when bid_{{ b.key }} = top_{{ b.key }} then place end) over same_request as first_{{ b.key }}
    {%- endfor %}
  from (
    select *
      {%- for b in bidders %},
      max(bid_{{ b.key }}) over same_request as top_{{ b.key }}
      {%- endfor %}
    from {{ bids }}
    window same_request as (partition by request)
  )
  window same_request as (partition by request)
)
