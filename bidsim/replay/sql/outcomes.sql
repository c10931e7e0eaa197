-- What counts for each policy. A win counts where the log observed its outcome (spec 3.6, outcomes: observed);
-- spend on all decided wins is kept beside it for coverage. Under a budget the settled rows say what was entered.
select *
  {%- for b in bidders %}
  {%- if settled %},
  entered_{{ b.key }} as e_{{ b.key }},
  won_{{ b.key }} as d_{{ b.key }},
  won_{{ b.key }} and observed as o_{{ b.key }},
  open_{{ b.key }} as u_{{ b.key }},
  paid_{{ b.key }} as cost_{{ b.key }}
  {%- else %},
  bid_{{ b.key }} is not null as e_{{ b.key }},
  wins_{{ b.key }} as d_{{ b.key }},
  wins_{{ b.key }} and observed as o_{{ b.key }},
  unknown_{{ b.key }} as u_{{ b.key }},
  case when wins_{{ b.key }} then pay_{{ b.key }} else 0 end as cost_{{ b.key }}
  {%- endif %}
  {%- endfor %}
from {{ auctions }}
