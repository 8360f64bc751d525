"""The templates of HTML pages: every value is escaped, and one that is missing is an error."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def page_templates(package: str) -> Environment:
    """Returns the templates in the folder `templates` of a package."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
