"""Units and counted things that may follow a number without changing it, and words that do change it."""

# Each line holds the spellings of one unit. Units of different lines differ: 5 m is not 5 cm.
UNITS = """
m meter meters metre metres
cm centimeter centimeters centimetre centimetres
mm millimeter millimeters millimetre millimetres
km kilometer kilometers kilometre kilometres
in inch inches
ft foot feet
yd yard yards
mi mile miles
g gram grams
kg kilogram kilograms kilo kilos
mg milligram milligrams
lb lbs pound pounds
oz ounce ounces
ton tons tonne tonnes
l L liter liters litre litres
ml mL milliliter milliliters millilitre millilitres
gal gallon gallons
pint pints
quart quarts
cup cups
tablespoon tablespoons tbsp
teaspoon teaspoons tsp
s sec secs second seconds
min mins minute minutes
h hr hrs hour hours
day days
week weeks
month months
yr year years years\\ old
mph miles\\ per\\ hour
km/h kmh kph kilometers\\ per\\ hour
m/s meters\\ per\\ second
ft/s feet\\ per\\ second
dollar dollars usd USD bucks
cent cents
euro euros
pound\\ sterling
rupee rupees
degree degrees deg
radian radians rad
unit units
sq\\ m square\\ meters square\\ metres m^2
sq\\ cm square\\ centimeters square\\ centimetres cm^2
sq\\ ft square\\ feet ft^2
sq\\ in square\\ inches in^2
square\\ miles mi^2
square\\ yards yd^2
square\\ units
cubic\\ meters m^3
cubic\\ centimeters cm^3 cc
cubic\\ feet ft^3
cubic\\ inches in^3
cubic\\ yards yd^3
cubic\\ units
acre acres
hectare hectares
watt watts W
volt volts V
joule joules J
newton newtons N
hertz Hz
pascal pascals Pa
am a.m. AM
pm p.m. PM
"""

# Things that questions count. They are one class: "18 eggs" and "18" are equal.
COUNTED = """
apples bags balloons balls bananas bees birds blocks boats books bottles boxes boys brownies buses cakes calories
candies candles cans cards cars cats chairs chickens children classes coins cookies cows crayons cups customers degrees
digits dogs dolls donuts doors ducks edges eggs episodes faces feet fish flowers friends games gallons gifts
girls glasses grades groups guests hats horses houses integers items jars jelly\\ beans kids kittens legs letters
lines loaves marbles matches meals members men minutes muffins nails notebooks notes numbers nuts oranges packages
packs pages pairs paintings pencils pens people percent\\ points persons photos pictures pieces pies pizzas plants
plates players points pots presents puppies questions red\\ balls rabbits roses rows sandwiches scoops seats seeds
sets sheep sheets shells shirts shoes sides slices socks solutions songs squares stamps stickers stones stories
strawberries students subsets sweets tables teachers teams terms tests tickets tiles times tomatoes toppings toys
trays trees triangles trips turns values vertices visitors ways women words workers zeros
"""
NUMBER_WORDS = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def names_of(table: str) -> list[str]:
    """Return the names in a line of a table; a backslash joins the words of one name."""
    return [name.replace("\0", " ") for name in table.replace("\\ ", "\0").split()]


def singular(noun: str) -> str:
    """Return the singular of a counted noun, as far as its spelling tells."""
    for ending, replacement in (("ies", "y"), ("ves", "f"), ("xes", "x"), ("ches", "ch"), ("sses", "ss"), ("s", "")):
        if noun.endswith(ending):
            return noun.removesuffix(ending) + replacement
    return noun


# Each name, with the name of its class; the class of counted things is empty.
CLASSES = {name: "" for noun in names_of(COUNTED) for name in (noun, singular(noun))}
CLASSES |= {name: names_of(line)[0] for line in UNITS.strip().splitlines() for name in names_of(line)}
