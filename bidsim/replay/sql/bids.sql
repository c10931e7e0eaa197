{%- from "bid" import entered -%}
-- Step 3, second half. raw = formula * multiplier; no bid where it is NULL, NaN, infinite, <= 0 or below min; cut at max.
-- A first-price bid that could not be paid exactly (9e9 and more per row) is no bid either.
select *
  {%- for b in bidders %},
  case when {{ entered(b, any_first_price) }} then {{ b.limited }} end as bid_{{ b.key }}
  {%- endfor %}
from {{ formulas }}
