{#- Whether a policy bids on a row (spec section 3, step 3). -#}
{%- macro entered(b, any_first_price) -%}
isfinite({{ b.raw }}) and {{ b.raw }} > 0e0{{ " and " ~ b.raw ~ " >= " ~ b.min if b.least }} and not undecidable
    {%- if any_first_price %} and not (first_price and {{ b.limited }} * w >= 9e9){% endif %}
{%- endmacro -%}
