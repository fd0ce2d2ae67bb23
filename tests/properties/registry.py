"""All properties, by name."""

from tests.properties import documents, images, networks, params, tables
from tests.properties.outcome import Property

PROPERTIES: dict[str, Property] = {
    each.name: each for module in (params, tables, documents, images, networks) for each in module.PROPERTIES
}
