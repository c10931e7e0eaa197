-- Step 1. The rows of the window for which every condition is true, each role in one plain type.
-- Money and labels become DOUBLE, local_ts is wall clock in the scenario's time zone. Nothing is judged yet.
select
  {{ time or 'null::timestamp' }} as ts,
  {{ local_time or 'null::timestamp' }} as local_ts,
  {%- for role in ('campaign', 'request') %}
  {{ roles[role] or 'null::varchar' }} as {{ role }},
  {%- endfor %}
  {%- for role in numeric_roles %}
  {{ 'cast(' ~ roles[role] ~ ' as double)' if roles[role] else ('1e0' if role == 'weight' else 'null::double') }} as {{ role }}_logged,
  {%- endfor %}
  {{ unit }} as unit,
  {{ first_price }} as first_price,
  {%- for p in predictions %}
  {{ 'cast(' ~ p.sql ~ ' as double)' }} as {{ p.column }},
  {%- endfor %}
  {%- for segment in segments %}
  {{ segment.sql }} as {{ segment.column }},
  {%- endfor %}
  {%- for c in carried %}
  {{ c.sql }} as {{ c.column }},
  {%- endfor %}
  {{ budget_period or 'null::varchar' }} as period,
  {%- if pace %}
  {{ pace[0] }} as elapsed,
  {{ pace[1] }} as span,
  {%- endif %}
  {{ position.file }} as log_file,
  {{ position.row }} as log_row
from {{ reader }} as s
{%- if campaigns %}
left join {{ campaigns.reader }} as c on cast(c.{{ campaigns.key }} as varchar) = cast({{ roles.campaign }} as varchar)
{%- endif %}
where true
  {%- for condition in conditions %}
  and coalesce({{ condition }}, false)
  {%- endfor %}
