"""Omniglot's alphabets: a character's label is its place among all of its set, in sorted order."""

# Of the background set, on which models train: how many characters each has.
BACKGROUND = {
    "Alphabet_of_the_Magi": 20,
    "Anglo-Saxon_Futhorc": 29,
    "Arcadian": 26,
    "Armenian": 41,
    "Asomtavruli_(Georgian)": 40,
    "Balinese": 24,
    "Bengali": 46,
    "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14,
    "Braille": 26,
    "Burmese_(Myanmar)": 34,
    "Cyrillic": 33,
    "Early_Aramaic": 22,
    "Futurama": 26,
    "Grantha": 43,
    "Greek": 24,
    "Gujarati": 48,
    "Hebrew": 22,
    "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
    "Japanese_(hiragana)": 52,
    "Japanese_(katakana)": 47,
    "Korean": 40,
    "Latin": 26,
    "Malay_(Jawi_-_Arabic)": 40,
    "Mkhedruli_(Georgian)": 41,
    "N_Ko": 33,
    "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14,
    "Sanskrit": 42,
    "Syriac_(Estrangelo)": 23,
    "Tagalog": 17,
    "Tifinagh": 55,
}
DRAWERS = 20  # of every character
# Held back for validation, so that its characters are new to the model: the last in sorted order,
# with 2,740 of 19,280 images about as large a share as of other sets.
VALIDATION = ("Sanskrit", "Syriac_(Estrangelo)", "Tagalog", "Tifinagh")
# Those whose pen strokes were published: of the two small background sets.
WITH_STROKES = (
    "Balinese",
    "Early_Aramaic",
    "Greek",
    "Japanese_(katakana)",
    "Korean",
    "Latin",
    "Sanskrit",
    "Tagalog",
)


def labels(*alphabets: str) -> tuple[int, ...]:
    """The labels of all characters of some alphabets of the background set, in order."""
    found, first = [], 0
    for name, count in BACKGROUND.items():
        if name in alphabets:
            found += range(first, first + count)
        first += count
    return tuple(found)
