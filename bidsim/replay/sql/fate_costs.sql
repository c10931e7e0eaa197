{#- What an unknown win of a policy costs (spec 3.6), 1e-9 CPM times the weight: at most its bid; at least the logged bid
   that lost, and the floor. Where the bid itself is paid, both are the bid. -#}
{%- macro whole(cpm) -%}
cast(floor(least(({{ cpm }}) * w, 9e9) * 1e9 + 0.5e0) as bigint)
{%- endmacro -%}
{%- macro floor_price() -%}
coalesce(case when isfinite(floor_logged) then floor_logged end, 0e0)
{%- endmacro -%}
{%- macro dear(key) -%}
{{ whole("bid_" ~ key) }}
{%- endmacro -%}
{%- macro cheap(key) -%}
{{ whole("case when first_price then bid_" ~ key ~ " else least(greatest(coalesce(bid_log, 0e0), " ~ floor_price() ~ "), bid_" ~ key ~ ") end") }}
{%- endmacro -%}
