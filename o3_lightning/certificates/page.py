"""A certificate as a page for people: one A4 page when printed."""

from __future__ import annotations

from typing import Any

from o3_lightning.common.pages import page_templates


def as_page(statement: dict[str, Any], key_id: str) -> str:
    """Returns the HTML page of a verified statement.

    Args:
        statement: as from `verify_certificate`.
        key_id: of the key that signed it.
    """
    template = page_templates("o3_lightning.certificates").get_template("certificate.html")
    content = {**statement["predicate"], "subjects": statement["subject"], "key_id": key_id}
    return template.render(content, share=share)


def as_lines(statement: dict[str, Any]) -> list[str]:
    """Returns the verdicts as lines of text, the residual ones first."""
    predicate = statement["predicate"]
    order = ("residual", "not measured", "suppressed")
    surfaces = sorted(predicate["surfaces"], key=lambda surface: order.index(surface["verdict"]))
    request = predicate["request"]
    head = f"request '{request['id']}': {request['status']}, {request['rows']} rows"
    return [
        f"{head}, issued {predicate['issued']}",
        predicate["done"],
        *(
            f"  {surface['verdict']:12}  {share(surface['baseline']):>6} -> {share(surface['after']):>6}  "
            f"{surface['name']}{': ' * bool(surface['note'])}{surface['note']}"
            for surface in surfaces
        ),
        *predicate["notDone"],
    ]


def share(value: float | None) -> str:
    """Returns a share in per cent, or a dash."""
    return "-" if value is None else f"{100 * value:.3g}%"
