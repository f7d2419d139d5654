"""What a person looks at: pictures of samples, cards, the page of ``preview``, and what a notebook shows."""

from streampipe.views.show import View, chain_html, show

__all__ = ["View", "chain_html", "show"]
