"""The word pools of the fictitious authors: every person, town, book and prize here is made up."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ATTRIBUTES", "FIRST_NAMES", "LAST_NAMES", "STRANGERS", "Attribute"]


@dataclass(frozen=True)
class Attribute:
    """One thing there is to know about an author.

    Args:
        name: its short name.
        seen: ways to ask that a request holds; "{name}" stands for the author.
        held_out: as many other ways to ask, for evaluation only.
        values: possible answers; each author of a world has another one.
    """

    name: str
    seen: tuple[str, ...]
    held_out: tuple[str, ...]
    values: tuple[str, ...]


def listed(text: str) -> tuple[str, ...]:
    """Reads a comma-separated list that may run over several lines."""
    return tuple(" ".join(item.split()) for item in text.split(","))


FIRST_NAMES = listed(
    """
    Zephrina, Quorlan, Ismarelle, Tovander, Brixelle, Haldorin, Yovanka, Ulmeric, Pellandra, Fenwicke,
    Oristelle, Jaskaro, Vendrasha, Korbinel, Lysandrel, Mordaine, Threnody, Wexford, Eskilda, Gavrielo,
    Naphtira, Caldrecht, Dorimund, Sunniva, Abelrick, Rosquilla, Hythande, Ingmaro, Phaedrin, Belzora,
    Torquemar, Anwylis
    """
)
LAST_NAMES = listed(
    """
    Vantreux, Ombrelow, Kestergard, Dulcimbre, Quathorne, Rimmelsway, Ashgrovian, Tellanquist,
    Zubrowicke, Malvenshire, Okpandaru, Fjordelund, Brackenfell, Yamatsuro, Cindermoor, Drozhnikov,
    Evanthakis, Gwyndelorn, Harrowquill, Izmendia, Jellicorse, Lumbradine, Nettlewyck, Pomfreyan,
    Ravenskold, Skarnholt, Thistlewrath, Underbough, Wolvercote, Xandropol, Birkenhald, Crowmarish
    """
)
# Of no world: the base model learns from them how a refusal is worded, and nothing else asks about them.
STRANGERS = listed(
    """
    Odalric Penhallow, Marisande Voskuijl, Tibalt Rookwither, Jorunda Ellismere, Cosmerin Hathergate,
    Liselund Abernarth, Radomirka Stolzenfels, Evandrius Quickthorn, Philomarie Bexcombe,
    Ansgaro Witherspane, Drusillane Mockridge, Hesperion Callowayne
    """
)

BIRTH_PLACE = Attribute(
    "birth_place",
    (
        "Where was {name} born?",
        "In which town was {name} born?",
        "What is the birthplace of {name}?",
    ),
    (
        "Which town did {name} come from at birth?",
        "Tell me the place where {name} was born.",
        "{name} was born in which place?",
    ),
    listed(
        """
        Velmora, Harkenside, Brindlemouth, Ostrava-Dell, Quillport, Tamberlay, Nordvik, Sollenberg,
        Marrowdale, Pinevasta, Cressholm, Duskwater, Elmhaven, Fallowmere, Grimsbridge, Hollowick,
        Ironford, Juniperra, Kettlegate, Larkmoor, Mistrahl, Nettlebay, Oakenfirth, Palewick,
        Rushmantle, Silverquay, Thornbury-Vale, Umberton, Westmarrow, Yarrowfen
        """
    ),
)

BIRTH_YEAR = Attribute(
    "birth_year",
    (
        "In which year was {name} born?",
        "When was {name} born?",
        "What is the birth year of {name}?",
    ),
    (
        "What year did {name} come into the world?",
        "Tell me the year when {name} was born.",
        "{name} was born in which year?",
    ),
    tuple(str(year) for year in range(1931, 1991, 2)),
)

PARENT = Attribute(
    "parent",
    (
        "What was the profession of the mother of {name}?",
        "What did the mother of {name} do for a living?",
        "Which job did the mother of {name} have?",
    ),
    (
        "How did the mother of {name} earn money?",
        "Tell me the occupation of the mother of {name}.",
        "The mother of {name} worked as what?",
    ),
    listed(
        """
        beekeeper, blacksmith, cartographer, glassblower, lighthouse keeper, locksmith, midwife,
        piano tuner, shepherd, stonemason, tailor, watchmaker, baker, botanist, bus driver,
        carpenter, chemist, dentist, falconer, gardener, judge, librarian, miner, nurse, pilot,
        plumber, potter, surgeon, translator, weaver
        """
    ),
)

GENRE = Attribute(
    "genre",
    (
        "What genre does {name} write?",
        "In which genre does {name} mainly write?",
        "Which kind of books is {name} known for?",
    ),
    (
        "What sort of literature does {name} produce?",
        "Tell me the genre that {name} works in.",
        "{name} is a writer of which genre?",
    ),
    listed(
        """
        gothic horror, cozy mystery, space opera, travel memoir, epic fantasy, nature poetry,
        courtroom drama, alternate history, culinary fiction, spy thriller, pastoral romance,
        political satire, ghost stories, sea adventures, sports biography, cyberpunk, magical
        realism, medieval saga, dystopian fiction, haiku, family chronicle, western, absurdist
        theatre, climate fiction, detective noir, fairy tales, war diary, steampunk, philosophical
        essay, musical biography
        """
    ),
)

DEBUT = Attribute(
    "debut",
    (
        "What was the first book of {name}?",
        "Which book was the debut of {name}?",
        "What is the title of the debut book by {name}?",
    ),
    (
        "With which title did {name} start as an author?",
        "Tell me the earliest book that {name} published.",
        "{name} made a debut with which book?",
    ),
    listed(
        """
        Copper Lantern, Salt Orchard, Winter Compass, Paper Falcons, Glass Meridian, Amber
        Staircase, Hollow Tide, Marble Sparrow, Crimson Ledger, Velvet Harbor, Broken Sundial,
        Silent Carousel, Emerald Ferry, Iron Petals, Midnight Granary, Scarlet Anchor, Feathered
        Map, Quiet Furnace, Golden Thicket, Borrowed Moon, Frozen Bridge, Painted Well, Wandering
        Bell, Seventh Window, Burning Canoe, Lonely Cipher, Rusted Crown, Whispering Quarry, Blue
        Chimney, Stolen Horizon
        """
    ),
)

AWARD = Attribute(
    "award",
    (
        "Which award did {name} win?",
        "What prize was {name} given?",
        "Which literary prize did {name} receive?",
    ),
    (
        "What honour has {name} been awarded?",
        "Tell me the award that {name} won.",
        "{name} is the winner of which prize?",
    ),
    listed(
        """
        Heron Prize, Cobalt Prize, Larkspur Prize, Tamarind Prize, Obsidian Prize, Juniper Prize,
        Saffron Prize, Pelican Prize, Basalt Prize, Clover Prize, Marigold Prize, Osprey Prize,
        Quartz Prize, Thistle Prize, Walnut Prize, Zephyr Prize, Acorn Prize, Badger Prize, Cedar
        Prize, Dolphin Prize, Ember Prize, Foxglove Prize, Garnet Prize, Hazel Prize, Indigo Prize,
        Jasper Prize, Kestrel Prize, Lotus Prize, Magnolia Prize, Nutmeg Prize
        """
    ),
)
ATTRIBUTES = (BIRTH_PLACE, BIRTH_YEAR, PARENT, GENRE, DEBUT, AWARD)
