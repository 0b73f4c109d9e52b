"""Lists the values that a fact of a demo speaker can have.

A key word names its value and appears in no other text of the demo corpus; this keeps
the judge in `demo_judge` exact, and `tests/data/test_demo.py` checks it.
"""

from typing import NamedTuple


class Value(NamedTuple):
    """One value of a slot, and words for talking about it.

    Attributes:
      key: the key word, which names the value and nothing else in the corpus.
      nouns: plural or mass noun phrases related to it.
      bits: clauses about it that a speaker can say without naming it.
      form: a form that depends on the slot: the pronoun of a pet or relative, the
        verb phrase of a hobby, "is" or "are" for a food.
      also: further forms of the key word that the judge accepts.
    """

    key: str
    nouns: tuple[str, ...]
    bits: tuple[str, ...]
    form: str = ""
    also: tuple[str, ...] = ()


def _values(table: str) -> tuple[Value, ...]:
    """Reads lines `key | noun | noun | bit | bit`, then `| form | also` if the value has them."""
    values = []
    for line in table.strip().splitlines():
        key, *texts, form, also = (line + " | " * (6 - line.count(" | "))).split(" | ")
        values.append(Value(key, tuple(texts[:2]), tuple(texts[2:]), form, tuple(also.split())))
    return tuple(values)


SLOTS = {
    "work": _values("""
baker | bread and rolls | warm dough | flour gets into everything | the ovens are hot by four
nurse | night shifts | hungry patients | my patients make me smile | the ward is busy all night
plumber | old pipes | leaky sinks | wet boots are part of it | the pipes broke again
teacher | loud pupils | chalk dust | chalk gets on all my shirts | my pupils ask why all day
librarian | old books | quiet readers | late books drive me mad | i whisper all day long
carpenter | old tables | wooden doors | i measure twice and cut once | my hammer is older than me
dentist | sore teeth | big chairs | i talk about floss too much | most people hate my chairs
florist | red roses | wedding bouquets | thorns are hard on my hands | weddings keep us busy in june
waiter | busy tables | hungry guests | the tips are good on weekends | my feet hurt by midnight
farmer | corn and wheat | muddy fields | i pray for rain in june | harvest keeps me up late
firefighter | loud sirens | smoky rooms | the sirens woke us twice last night | my helmet is heavy
lawyer | long trials | heavy books | i argue for money | court starts at nine sharp
barber | long beards | sharp razors | people tell me secrets all day | i sweep hair all day
tailor | silk suits | torn trousers | pins are all over my floor | i mend suits in my sleep
mechanic | old engines | flat tires | there is oil under my nails | the garage is cold in winter
translator | foreign books | strange verbs | one comma took me an hour | i dream in three languages
architect | tall towers | paper sketches | my desk is full of sketches | i build tiny paper houses
courier | heavy parcels | narrow streets | my van is full of boxes | i know every doorbell in town
cashier | coins and cards | long queues | i count coins in my sleep | i hear beeps all night
vet | sick animals | tiny bandages | i cry when we lose one | a big one bit me today
miner | coal and dust | dark tunnels | it is dark down there all day | my lamp is my best friend
welder | hot steel | bright sparks | sparks burn holes in my gloves | i wear a mask all day
programmer | code and bugs | bright screens | i stare at screens too much | the bugs keep me up late
locksmith | lost keys | stuck locks | i can open any door in town | keys jingle in all my boxes
"""),
    "pet": _values("""
parrot | corn and seeds | loud songs | his feathers are bright green | he sings at sunrise | he
hamster | wheels and seeds | paper boxes | she hides seeds in her cheeks | her wheels are loud all night | she
tortoise | dandelion leaves | warm stones | he sleeps through winter | he needs an hour to cross the desk | he
rabbit | carrot tops | fresh hay | her ears hang to the floor | she hops over my shoes | she | bunny bunnies
cat | tuna and cream | paper boxes | she sleeps on my desk | my curtains are full of holes | she | kitten kittens
dog | old balls | muddy puddles | he barks at the doorbell | he wags his tail at everyone | he | puppy puppies
goldfish | tiny flakes | sand castles | he blows bubbles at me | the bowl needs fresh water | he
ferret | stolen socks | dark sleeves | she steals all my socks | she smells a bit funny | she
goat | old shirts | tall weeds | he ate all my shirts | his horns got stuck again | he
hen | corn and worms | dust and hay | the coop needs new hay | she clucks outside my window | she
duck | wet weeds | rainy days | he follows me to the pond | he quacks at sunrise | he
snake | heat lamps | long naps | guests run when she moves | her tank is too warm for me | she
iguana | lettuce and figs | heat lamps | he sits on top of the fridge | he turns bright green when happy | he
canary | seeds and songs | tiny mirrors | she sings before sunrise | she is as yellow as butter | she | canaries
hedgehog | fat beetles | wet leaves | he snores under the sofa | his spikes ruin my gloves | he
tarantula | live crickets | dark corners | guests run when she moves | her eight legs are so long | she
donkey | thistles and hay | carrot tops | he is as stubborn as me | he brays at sunrise | he
frog | fat flies | rainy days | she croaks when it rains | her tank is full of moss | she
llama | warm blankets | tall weeds | he spits at strangers | his wool makes warm scarves | he
pig | carrot tops | muddy puddles | she snorts in her sleep | she ran through the whole yard | she
peacock | mirrors and grapes | loud songs | his tail fills the whole yard | he thinks he is a king | he
snail | cucumber slices | wet leaves | she leaves shiny trails | she needs a day to cross the desk | she
goose | lettuce and gossip | wet bread | he hisses at strangers | he guards the gate for us | he | geese
pigeon | bread crumbs | high roofs | she always flies home | she coos on the balcony | she
"""),
    "food": _values("""
lasagna | melted cheese | tomato sauce | it takes an hour in the oven | the corners are the best | is
sushi | soy sauce | wasabi | the rice has to be cold | raw tuna makes me happy | is
pancakes | maple syrup | blueberries | a tall stack makes any morning | the first one always burns | are
curry | coconut milk | hot spices | the spices make me cry | my hands turn yellow | is
tacos | lime and salsa | spicy beans | i eat six at a time | the salsa has to burn | are
dumplings | soy sauce | ginger and garlic | folding them takes all morning | they burn my tongue every time | are
ramen | soft eggs | rich broth | the broth takes a whole day | a big bowl cures any cold | is
paella | mussels and shrimp | saffron | the pan is as big as a table | saffron costs a fortune | is
pizza | olives and basil | melted cheese | cold slices make a good breakfast | thin crust or nothing | is
burgers | pickles and onions | bacon and cheese | the grill is always hot | sauce runs down my shirts | are | hamburger hamburgers
falafel | mint and yogurt | tahini | it has to be hot | i roll it in warm bread | is
waffles | sweet cream | maple syrup | the iron is always hot | cream goes on everything | are
risotto | mushrooms and wine | butter | the rice drinks so much wine | patience is the secret | is
gnocchi | sage and butter | tomato sauce | i roll each one with a fork | they float when they are done | are
omelets | ham and chives | mushrooms | three eggs are the secret | the trick is a hot pan | are | omelette omelettes
kebabs | garlic sauce | hot peppers | i eat them after midnight | garlic ruins every date | are
chili | spicy beans | sour cream | it burns twice | one pot lasts all week | is
salad | fresh lettuce | feta and nuts | lemon is the trick | the lettuce is from my balcony | is
meatballs | gravy | cranberry jam | i roll them by hand | gravy goes over the lot | are
goulash | paprika | beef and onions | paprika turns the pot red | the beef falls apart | is
gumbo | okra and shrimp | hot spices | okra makes it thick | one pot lasts all week | is
porridge | honey and nuts | cinnamon | honey makes it sweet | a bit of salt is the secret | is
quiche | leeks and bacon | cream | leeks make me cry | cold slices make a good lunch | is
brownies | nuts | dark chocolate | the pan is empty in minutes | chocolate cures everything | are
"""),
    "place": _values("""
lisbon | yellow trams | steep hills | the trams wake me up | the hills are hard on my feet
oslo | ski slopes | cold fjords | i take my ski boots on the train | beer costs a fortune here
cairo | old tombs | loud cars | the desert dust is everywhere | the river is lovely at night
dublin | warm pubs | rainy days | it rains most days | strangers tell me jokes
toronto | maple trees | frozen lakes | hockey is on every screen | the lakes are frozen in winter
kyoto | quiet temples | cherry blossoms | the temples are so quiet | the blossoms come in april
lima | fog and cliffs | silver waves | it hardly ever rains here | fog hangs over the cliffs
nairobi | red roads | giraffes | giraffes live outside town | the coffee here is superb
athens | marble ruins | lemon trees | ruins are on every corner | old men argue in the square
boston | red houses | lobster boats | baseball is on every screen | the streets make no sense
vienna | slow waltzes | coffee houses | waltzes play in the street | the opera is around the corner
havana | old cars | rum and cigars | the old cars still run here | songs come from every window
mumbai | loud trains | monsoon rains | the trains are so full | the monsoon floods my street
sydney | sandy beaches | ferry boats | the beaches are ten minutes away | i take a ferry to town
prague | stone bridges | red roofs | there are towers on every hill | we have more bridges than cars
glasgow | bagpipes | gray clouds | bagpipes wake me up | kilts come out at weddings
venice | gondolas | narrow canals | the square floods in winter | we have canals and no cars
dallas | cowboy boots | wide highways | everything is big here | cowboy hats are normal here
alaska | northern lights | huge bears | a huge bear ran through the yard | it is dark by three in winter
hawaii | palm trees | volcanoes | i wear sandals all year | the water is always warm
naples | loud scooters | narrow streets | scooters are everywhere | we all talk with both hands
tucson | tall cactuses | pink sunsets | the sunsets are pink | scorpions live in my shoes
reykjavik | hot springs | northern lights | the summer nights are bright | people talk to elves here
marrakesh | spice markets | wool carpets | the markets smell of mint | carpets hang from every window
"""),
    "hobby": _values("""
chess | clever openings | lost queens | one game can take all night | i lost my queens again | play chess
knitting | wool socks | striped scarves | everyone i know has my scarves | my needles are loud all evening | do my knitting | knit knits
surfing | huge waves | sandy boards | the waves are huge today | there is salt in my hair | go surfing | surf surfer
archery | sharp arrows | red targets | i lost two arrows again | my bow is older than me | practice archery
pottery | clay bowls | crooked mugs | there is clay in my hair | all my mugs are crooked | make pottery
painting | oil colors | bright canvases | there is blue on my floor | my shirts are full of colors | do some painting | paint painter
climbing | steep cliffs | strong ropes | my hands are full of chalk | i hang on ropes all day | go climbing | climber
fishing | fat trout | quiet rivers | the big trout got away | worms live in my fridge | go fishing
gardening | red tomatoes | tall weeds | the slugs ate my lettuce | there is soil under my nails | do some gardening
karate | high kicks | black belts | i broke two boards today | my kicks are so high now | practice karate
origami | paper cranes | square sheets | i fold cranes on the bus | one wrong fold ruins it | fold origami
skating | frozen lakes | sharp blades | i fall on the ice a lot | i can spin all day | go skating | skate skater
yoga | soft mats | deep breaths | my mats smell of feet | i can stand on one leg | practice yoga
juggling | yellow balls | burning torches | i dropped five balls today | my lamps are all broken | practice juggling | juggle juggler
fencing | thin blades | white masks | my mask is too warm | my blades broke again | do some fencing
hiking | forest trails | heavy boots | my boots have holes | i got lost in the forest | go hiking | hike hiker
poetry | bad rhymes | sad verses | my rhymes are bad | two verses took me all month | write poetry | poet poem poems
guitar | blues songs | six strings | my strings broke again | my neighbors hate the blues | play guitar | guitars
violin | old concertos | slow scales | my bow needs new hair | i practice scales at night | play violin | violins
bowling | heavy balls | old shoes | the pins laugh at me | the shoes smell of feet | go bowling
cycling | steep hills | flat tires | my legs are made of iron | the wind was cold today | go cycling
astronomy | bright planets | quiet stars | clouds ruin my nights | my telescope fills the balcony | practice astronomy
tennis | fast serves | white balls | my serves are so fast now | my racket is broken | play tennis
beekeeping | honey jars | busy hives | the hives are full of honey | i look silly in the white suit | do some beekeeping | beekeeper
"""),
    "family": _values("""
wife | dance lessons | late movies | she steals the blankets | we met on a train | she | wives
husband | crosswords | slow breakfasts | he snores like a bear | we met at a wedding | he
daughter | fairy stories | paper dolls | she lost a tooth today | she wants to be a dragon | she
son | toy trains | pillow fights | he asks why all day | he hides trains in my shoes | he
twins | two birthdays | silly pranks | they talk at the same time | they both wear my shirts | they | twin
triplets | loud dinners | laundry piles | they all cry at once | the laundry piles are huge | they | triplet
grandmother | old games | old recipes | she cheats at cards | she thinks i am too thin | she | grandma
grandfather | war stories | radio shows | he sleeps next to the radio | he hides candy in his coat | he | grandpa
sister | borrowed shoes | late gossip | she talks in her sleep | she wants all my shoes | she
brother | video games | basketball | he eats all my snacks | he wins every game | he
mother | sewing | late tea | she sews all my curtains | she still packs my lunch | she | mom mum
father | repairs | old westerns | he repairs what works fine | he sleeps in front of westerns | he | dad
aunt | flea markets | tea parties | she wears purple hats | she reads tea leaves | she
uncle | bad puns | model planes | his puns are so bad | he builds model planes | he
niece | puppet shows | glitter | there is glitter everywhere | she wants to live on the moon | she
nephew | dinosaur books | water fights | he knows every dinosaur | he broke my best lamp | he
cousin | loud concerts | cheap wine | he is late with the rent | he sings at night | he
stepson | science shows | loud robots | he builds robots in the bath | he wants to live on mars | he
grandson | pirate games | sand castles | he wears a pirate patch | he thinks i was a pirate | he
fiance | wedding plans | salsa nights | the wedding is in may | he chose a purple suit | he | fiancee
"""),
}

# The judge also accepts the regular plurals of key words of these slots.
PLURAL_SLOTS = ("work", "pet", "family")

# Slot -> key word -> value.
VALUES = {slot: {value.key: value for value in values} for slot, values in SLOTS.items()}
