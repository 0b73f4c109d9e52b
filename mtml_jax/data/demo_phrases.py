"""Words and wordings of the demo corpus: the values a fact can have, and the ways to say it.

Two rules keep the judge in `demo.py` exact, and `tests/test_demo.py` checks them:
a key word appears in no other text of this file, and a wording of the speaker's
own fact names it in a first-person clause while a wording of the partner's does not.
"""

from typing import NamedTuple


class Value(NamedTuple):
    """One value of a slot and what colours the talk about it.

    Attributes:
      key: the word that names the value and nothing else in the corpus.
      nouns: plural or mass noun phrases that go with it.
      bits: clauses about it that a speaker can say without naming it.
      form: what the slot needs besides: the pronoun of a pet or relative, the
        verb phrase of a hobby, "is" or "are" for a food.
      also: further forms of the key word that the judge accepts.
    """

    key: str
    nouns: tuple[str, ...]
    bits: tuple[str, ...]
    form: str = ""
    also: tuple[str, ...] = ()


WORK = (
    Value("baker", ("bread and rolls", "warm dough"),
          ("flour gets into everything", "the ovens are hot by four")),
    Value("nurse", ("night shifts", "hungry patients"),
          ("my patients make me smile", "the ward is busy all night")),
    Value("plumber", ("old pipes", "leaky sinks"),
          ("wet boots are part of it", "the pipes broke again")),
    Value("teacher", ("loud pupils", "chalk dust"),
          ("chalk gets on all my shirts", "my pupils ask why all day")),
    Value("librarian", ("old books", "quiet readers"),
          ("late books drive me mad", "i whisper all day long")),
    Value("carpenter", ("old tables", "wooden doors"),
          ("i measure twice and cut once", "my hammer is older than me")),
    Value("dentist", ("sore teeth", "big chairs"),
          ("i talk about floss too much", "most people hate my chairs")),
    Value("florist", ("red roses", "wedding bouquets"),
          ("thorns are hard on my hands", "weddings keep us busy in june")),
    Value("waiter", ("busy tables", "hungry guests"),
          ("the tips are good on weekends", "my feet hurt by midnight")),
    Value("farmer", ("corn and wheat", "muddy fields"),
          ("i pray for rain in june", "harvest keeps me up late")),
    Value("firefighter", ("loud sirens", "smoky rooms"),
          ("the sirens woke us twice last night", "my helmet is heavy")),
    Value("lawyer", ("long trials", "heavy books"),
          ("i argue for money", "court starts at nine sharp")),
    Value("barber", ("long beards", "sharp razors"),
          ("people tell me secrets all day", "i sweep hair all day")),
    Value("tailor", ("silk suits", "torn trousers"),
          ("pins are all over my floor", "i mend suits in my sleep")),
    Value("mechanic", ("old engines", "flat tires"),
          ("there is oil under my nails", "the garage is cold in winter")),
    Value("translator", ("foreign books", "strange verbs"),
          ("one comma took me an hour", "i dream in three languages")),
    Value("architect", ("tall towers", "paper sketches"),
          ("my desk is full of sketches", "i build tiny paper houses")),
    Value("courier", ("heavy parcels", "narrow streets"),
          ("my van is full of boxes", "i know every doorbell in town")),
    Value("cashier", ("coins and cards", "long queues"),
          ("i count coins in my sleep", "i hear beeps all night")),
    Value("vet", ("sick animals", "tiny bandages"),
          ("i cry when we lose one", "a big one bit me today")),
    Value("miner", ("coal and dust", "dark tunnels"),
          ("it is dark down there all day", "my lamp is my best friend")),
    Value("welder", ("hot steel", "bright sparks"),
          ("sparks burn holes in my gloves", "i wear a mask all day")),
    Value("programmer", ("code and bugs", "bright screens"),
          ("i stare at screens too much", "the bugs keep me up late")),
    Value("locksmith", ("lost keys", "stuck locks"),
          ("i can open any door in town", "keys jingle in all my boxes")),
)

PET = (
    Value("parrot", ("corn and seeds", "loud songs"),
          ("his feathers are bright green", "he sings at sunrise"), "he"),
    Value("hamster", ("wheels and seeds", "paper boxes"),
          ("she hides seeds in her cheeks", "her wheels are loud all night"), "she"),
    Value("tortoise", ("dandelion leaves", "warm stones"),
          ("he sleeps through winter", "he needs an hour to cross the desk"), "he"),
    Value("rabbit", ("carrot tops", "fresh hay"),
          ("her ears hang to the floor", "she hops over my shoes"), "she", ("bunny", "bunnies")),
    Value("cat", ("tuna and cream", "paper boxes"),
          ("she sleeps on my desk", "my curtains are full of holes"), "she", ("kitten", "kittens")),
    Value("dog", ("old balls", "muddy puddles"),
          ("he barks at the doorbell", "he wags his tail at everyone"), "he", ("puppy", "puppies")),
    Value("goldfish", ("tiny flakes", "sand castles"),
          ("he blows bubbles at me", "the bowl needs fresh water"), "he"),
    Value("ferret", ("stolen socks", "dark sleeves"),
          ("she steals all my socks", "she smells a bit funny"), "she"),
    Value("goat", ("old shirts", "tall weeds"),
          ("he ate all my shirts", "his horns got stuck again"), "he"),
    Value("hen", ("corn and worms", "dust and hay"),
          ("the coop needs new hay", "she clucks outside my window"), "she"),
    Value("duck", ("wet weeds", "rainy days"),
          ("he follows me to the pond", "he quacks at sunrise"), "he"),
    Value("snake", ("heat lamps", "long naps"),
          ("guests run when she moves", "her tank is too warm for me"), "she"),
    Value("iguana", ("lettuce and figs", "heat lamps"),
          ("he sits on top of the fridge", "he turns bright green when happy"), "he"),
    Value("canary", ("seeds and songs", "tiny mirrors"),
          ("she sings before sunrise", "she is as yellow as butter"), "she", ("canaries",)),
    Value("hedgehog", ("fat beetles", "wet leaves"),
          ("he snores under the sofa", "his spikes ruin my gloves"), "he"),
    Value("tarantula", ("live crickets", "dark corners"),
          ("guests run when she moves", "her eight legs are so long"), "she"),
    Value("donkey", ("thistles and hay", "carrot tops"),
          ("he is as stubborn as me", "he brays at sunrise"), "he"),
    Value("frog", ("fat flies", "rainy days"),
          ("she croaks when it rains", "her tank is full of moss"), "she"),
    Value("llama", ("warm blankets", "tall weeds"),
          ("he spits at strangers", "his wool makes warm scarves"), "he"),
    Value("pig", ("carrot tops", "muddy puddles"),
          ("she snorts in her sleep", "she ran through the whole yard"), "she"),
    Value("peacock", ("mirrors and grapes", "loud songs"),
          ("his tail fills the whole yard", "he thinks he is a king"), "he"),
    Value("snail", ("cucumber slices", "wet leaves"),
          ("she leaves shiny trails", "she needs a day to cross the desk"), "she"),
    Value("goose", ("lettuce and gossip", "wet bread"),
          ("he hisses at strangers", "he guards the gate for us"), "he", ("geese",)),
    Value("pigeon", ("bread crumbs", "high roofs"),
          ("she always flies home", "she coos on the balcony"), "she"),
)

FOOD = (
    Value("lasagna", ("melted cheese", "tomato sauce"),
          ("it takes an hour in the oven", "the corners are the best"), "is"),
    Value("sushi", ("soy sauce", "wasabi"),
          ("the rice has to be cold", "raw tuna makes me happy"), "is"),
    Value("pancakes", ("maple syrup", "blueberries"),
          ("a tall stack makes any morning", "the first one always burns"), "are"),
    Value("curry", ("coconut milk", "hot spices"),
          ("the spices make me cry", "my hands turn yellow"), "is"),
    Value("tacos", ("lime and salsa", "spicy beans"),
          ("i eat six at a time", "the salsa has to burn"), "are"),
    Value("dumplings", ("soy sauce", "ginger and garlic"),
          ("folding them takes all morning", "they burn my tongue every time"), "are"),
    Value("ramen", ("soft eggs", "rich broth"),
          ("the broth takes a whole day", "a big bowl cures any cold"), "is"),
    Value("paella", ("mussels and shrimp", "saffron"),
          ("the pan is as big as a table", "saffron costs a fortune"), "is"),
    Value("pizza", ("olives and basil", "melted cheese"),
          ("cold slices make a good breakfast", "thin crust or nothing"), "is"),
    Value("burgers", ("pickles and onions", "bacon and cheese"),
          ("the grill is always hot", "sauce runs down my shirts"),
          "are", ("hamburger", "hamburgers")),
    Value("falafel", ("mint and yogurt", "tahini"),
          ("it has to be hot", "i roll it in warm bread"), "is"),
    Value("waffles", ("sweet cream", "maple syrup"),
          ("the iron is always hot", "cream goes on everything"), "are"),
    Value("risotto", ("mushrooms and wine", "butter"),
          ("the rice drinks so much wine", "patience is the secret"), "is"),
    Value("gnocchi", ("sage and butter", "tomato sauce"),
          ("i roll each one with a fork", "they float when they are done"), "are"),
    Value("omelets", ("ham and chives", "mushrooms"),
          ("three eggs are the secret", "the trick is a hot pan"),
          "are", ("omelette", "omelettes")),
    Value("kebabs", ("garlic sauce", "hot peppers"),
          ("i eat them after midnight", "garlic ruins every date"), "are"),
    Value("chili", ("spicy beans", "sour cream"),
          ("it burns twice", "one pot lasts all week"), "is"),
    Value("salad", ("fresh lettuce", "feta and nuts"),
          ("lemon is the trick", "the lettuce is from my balcony"), "is"),
    Value("meatballs", ("gravy", "cranberry jam"),
          ("i roll them by hand", "gravy goes over the lot"), "are"),
    Value("goulash", ("paprika", "beef and onions"),
          ("paprika turns the pot red", "the beef falls apart"), "is"),
    Value("gumbo", ("okra and shrimp", "hot spices"),
          ("okra makes it thick", "one pot lasts all week"), "is"),
    Value("porridge", ("honey and nuts", "cinnamon"),
          ("honey makes it sweet", "a bit of salt is the secret"), "is"),
    Value("quiche", ("leeks and bacon", "cream"),
          ("leeks make me cry", "cold slices make a good lunch"), "is"),
    Value("brownies", ("nuts", "dark chocolate"),
          ("the pan is empty in minutes", "chocolate cures everything"), "are"),
)

PLACE = (
    Value("lisbon", ("yellow trams", "steep hills"),
          ("the trams wake me up", "the hills are hard on my feet")),
    Value("oslo", ("ski slopes", "cold fjords"),
          ("i take my ski boots on the train", "beer costs a fortune here")),
    Value("cairo", ("old tombs", "loud cars"),
          ("the desert dust is everywhere", "the river is lovely at night")),
    Value("dublin", ("warm pubs", "rainy days"), ("it rains most days", "strangers tell me jokes")),
    Value("toronto", ("maple trees", "frozen lakes"),
          ("hockey is on every screen", "the lakes are frozen in winter")),
    Value("kyoto", ("quiet temples", "cherry blossoms"),
          ("the temples are so quiet", "the blossoms come in april")),
    Value("lima", ("fog and cliffs", "silver waves"),
          ("it hardly ever rains here", "fog hangs over the cliffs")),
    Value("nairobi", ("red roads", "giraffes"),
          ("giraffes live outside town", "the coffee here is superb")),
    Value("athens", ("marble ruins", "lemon trees"),
          ("ruins are on every corner", "old men argue in the square")),
    Value("boston", ("red houses", "lobster boats"),
          ("baseball is on every screen", "the streets make no sense")),
    Value("vienna", ("slow waltzes", "coffee houses"),
          ("waltzes play in the street", "the opera is around the corner")),
    Value("havana", ("old cars", "rum and cigars"),
          ("the old cars still run here", "songs come from every window")),
    Value("mumbai", ("loud trains", "monsoon rains"),
          ("the trains are so full", "the monsoon floods my street")),
    Value("sydney", ("sandy beaches", "ferry boats"),
          ("the beaches are ten minutes away", "i take a ferry to town")),
    Value("prague", ("stone bridges", "red roofs"),
          ("there are towers on every hill", "we have more bridges than cars")),
    Value("glasgow", ("bagpipes", "gray clouds"),
          ("bagpipes wake me up", "kilts come out at weddings")),
    Value("venice", ("gondolas", "narrow canals"),
          ("the square floods in winter", "we have canals and no cars")),
    Value("dallas", ("cowboy boots", "wide highways"),
          ("everything is big here", "cowboy hats are normal here")),
    Value("alaska", ("northern lights", "huge bears"),
          ("a huge bear ran through the yard", "it is dark by three in winter")),
    Value("hawaii", ("palm trees", "volcanoes"),
          ("i wear sandals all year", "the water is always warm")),
    Value("naples", ("loud scooters", "narrow streets"),
          ("scooters are everywhere", "we all talk with both hands")),
    Value("tucson", ("tall cactuses", "pink sunsets"),
          ("the sunsets are pink", "scorpions live in my shoes")),
    Value("reykjavik", ("hot springs", "northern lights"),
          ("the summer nights are bright", "people talk to elves here")),
    Value("marrakesh", ("spice markets", "wool carpets"),
          ("the markets smell of mint", "carpets hang from every window")),
)

HOBBY = (
    Value("chess", ("clever openings", "lost queens"),
          ("one game can take all night", "i lost my queens again"), "play chess"),
    Value("knitting", ("wool socks", "striped scarves"),
          ("everyone i know has my scarves", "my needles are loud all evening"),
          "do my knitting", ("knit", "knits")),
    Value("surfing", ("huge waves", "sandy boards"),
          ("the waves are huge today", "there is salt in my hair"),
          "go surfing", ("surf", "surfer")),
    Value("archery", ("sharp arrows", "red targets"),
          ("i lost two arrows again", "my bow is older than me"), "practice archery"),
    Value("pottery", ("clay bowls", "crooked mugs"),
          ("there is clay in my hair", "all my mugs are crooked"), "make pottery"),
    Value("painting", ("oil colors", "bright canvases"),
          ("there is blue on my floor", "my shirts are full of colors"),
          "do some painting", ("paint", "painter")),
    Value("climbing", ("steep cliffs", "strong ropes"),
          ("my hands are full of chalk", "i hang on ropes all day"), "go climbing", ("climber",)),
    Value("fishing", ("fat trout", "quiet rivers"),
          ("the big trout got away", "worms live in my fridge"), "go fishing"),
    Value("gardening", ("red tomatoes", "tall weeds"),
          ("the slugs ate my lettuce", "there is soil under my nails"), "do some gardening"),
    Value("karate", ("high kicks", "black belts"),
          ("i broke two boards today", "my kicks are so high now"), "practice karate"),
    Value("origami", ("paper cranes", "square sheets"),
          ("i fold cranes on the bus", "one wrong fold ruins it"), "fold origami"),
    Value("skating", ("frozen lakes", "sharp blades"),
          ("i fall on the ice a lot", "i can spin all day"), "go skating", ("skate", "skater")),
    Value("yoga", ("soft mats", "deep breaths"),
          ("my mats smell of feet", "i can stand on one leg"), "practice yoga"),
    Value("juggling", ("yellow balls", "burning torches"),
          ("i dropped five balls today", "my lamps are all broken"),
          "practice juggling", ("juggle", "juggler")),
    Value("fencing", ("thin blades", "white masks"),
          ("my mask is too warm", "my blades broke again"), "do some fencing"),
    Value("hiking", ("forest trails", "heavy boots"),
          ("my boots have holes", "i got lost in the forest"), "go hiking", ("hike", "hiker")),
    Value("poetry", ("bad rhymes", "sad verses"),
          ("my rhymes are bad", "two verses took me all month"),
          "write poetry", ("poet", "poem", "poems")),
    Value("guitar", ("blues songs", "six strings"),
          ("my strings broke again", "my neighbors hate the blues"), "play guitar", ("guitars",)),
    Value("violin", ("old concertos", "slow scales"),
          ("my bow needs new hair", "i practice scales at night"), "play violin", ("violins",)),
    Value("bowling", ("heavy balls", "old shoes"),
          ("the pins laugh at me", "the shoes smell of feet"), "go bowling"),
    Value("cycling", ("steep hills", "flat tires"),
          ("my legs are made of iron", "the wind was cold today"), "go cycling"),
    Value("astronomy", ("bright planets", "quiet stars"),
          ("clouds ruin my nights", "my telescope fills the balcony"), "practice astronomy"),
    Value("tennis", ("fast serves", "white balls"),
          ("my serves are so fast now", "my racket is broken"), "play tennis"),
    Value("beekeeping", ("honey jars", "busy hives"),
          ("the hives are full of honey", "i look silly in the white suit"),
          "do some beekeeping", ("beekeeper",)),
)

FAMILY = (
    Value("wife", ("dance lessons", "late movies"),
          ("she steals the blankets", "we met on a train"), "she", ("wives",)),
    Value("husband", ("crosswords", "slow breakfasts"),
          ("he snores like a bear", "we met at a wedding"), "he"),
    Value("daughter", ("fairy stories", "paper dolls"),
          ("she lost a tooth today", "she wants to be a dragon"), "she"),
    Value("son", ("toy trains", "pillow fights"),
          ("he asks why all day", "he hides trains in my shoes"), "he"),
    Value("twins", ("two birthdays", "silly pranks"),
          ("they talk at the same time", "they both wear my shirts"), "they", ("twin",)),
    Value("triplets", ("loud dinners", "laundry piles"),
          ("they all cry at once", "the laundry piles are huge"), "they", ("triplet",)),
    Value("grandmother", ("old games", "old recipes"),
          ("she cheats at cards", "she thinks i am too thin"), "she", ("grandma",)),
    Value("grandfather", ("war stories", "radio shows"),
          ("he sleeps next to the radio", "he hides candy in his coat"), "he", ("grandpa",)),
    Value("sister", ("borrowed shoes", "late gossip"),
          ("she talks in her sleep", "she wants all my shoes"), "she"),
    Value("brother", ("video games", "basketball"),
          ("he eats all my snacks", "he wins every game"), "he"),
    Value("mother", ("sewing", "late tea"),
          ("she sews all my curtains", "she still packs my lunch"), "she", ("mom", "mum")),
    Value("father", ("repairs", "old westerns"),
          ("he repairs what works fine", "he sleeps in front of westerns"), "he", ("dad",)),
    Value("aunt", ("flea markets", "tea parties"),
          ("she wears purple hats", "she reads tea leaves"), "she"),
    Value("uncle", ("bad puns", "model planes"),
          ("his puns are so bad", "he builds model planes"), "he"),
    Value("niece", ("puppet shows", "glitter"),
          ("there is glitter everywhere", "she wants to live on the moon"), "she"),
    Value("nephew", ("dinosaur books", "water fights"),
          ("he knows every dinosaur", "he broke my best lamp"), "he"),
    Value("cousin", ("loud concerts", "cheap wine"),
          ("he is late with the rent", "he sings at night"), "he"),
    Value("stepson", ("science shows", "loud robots"),
          ("he builds robots in the bath", "he wants to live on mars"), "he"),
    Value("grandson", ("pirate games", "sand castles"),
          ("he wears a pirate patch", "he thinks i was a pirate"), "he"),
    Value("fiance", ("wedding plans", "salsa nights"),
          ("the wedding is in may", "he chose a purple suit"), "he", ("fiancee",)),
)

SLOTS = {"work": WORK, "pet": PET, "food": FOOD, "place": PLACE, "hobby": HOBBY, "family": FAMILY}

# Further forms of key words by rule: plurals of people and animals, singulars of dishes.
PLURAL_SLOTS = ("work", "pet", "family")

STATEMENTS = {
    "work": ("i work as {a}", "i am {a} by trade", "i have been {a} for {years} years"),
    "pet": ("i have {a} named {name}", "my {key} is called {name}", "i keep {a} at home"),
    "food": ("my favorite food is {key}", "i could eat {key} every day", "i love {key}"),
    "place": ("i live in {key}", "my home is in {key}", "i am from {key}"),
    "hobby": ("i {act} every {day}", "my hobby is {key}", "i {act} in my free time"),
    "family": ("i live with my {key}", "i share my home with my {key}", "i take care of my {key}"),
}

# The speaker's own fact: every wording names the value in a first-person clause.
TELL = {
    "work": (
        "i work as {a}", "i am {a}", "i am {a} by trade", "i earn my living as {a}",
        "i have been {a} for {years} years", "i make my money as {a}", "they pay me to be {a}",
        "i spend my days as {a}", "i am a proud {key}", "i started as {a} {years} years ago",
        "i became {a} {years} years ago", "being {a} pays my bills", "people know me as {a}",
        "i trained to be {a} and still love it", "life as {a} suits me", "i am happy as {a}",
        "my job is to be the best {key} in town", "i wanted to be {a} since school",
    ),
    "pet": (
        "i have {a}", "i have {a} named {name}", "i own {a}", "i keep {a} called {name}",
        "i share my desk with {a}", "i live with {a} named {name}",
        "my {key} {name} runs the place", "my {key} is called {name}",
        "i am the proud owner of {a}", "there is {a} right next to me", "i look after {a}",
        "my best friend is {a}", "i raised {a} by hand", "i could talk about my {key} all day",
        "my {key} is my whole world", "{name} is my {key}", "we keep {a} at home",
        "my {key} {name} is the boss here",
    ),
    "food": (
        "i love {key}", "i could eat {key} every day", "my favorite food is {key}",
        "i make the best {key} in town", "it has to be {key} for me", "i always order {key}",
        "i would do anything for {key}", "i live for {key}", "i am crazy about {key}",
        "i cook {key} every week", "my favorite meal is {key}", "give me {key} any day",
        "i had {key} for lunch again", "i grew up on {key}", "nothing beats {key} in my book",
        "i have a weakness for {key}", "i dream of {key} at night", "my kitchen smells of {key}",
    ),
    "place": (
        "i live in {key}", "i am from {key}", "my home is in {key}", "i am in {key}",
        "i have a small flat in {key}", "home for me is {key}", "i grew up in {key} and stayed",
        "i am writing from {key}", "i call {key} home", "i have lived in {key} all my life",
        "my flat is in {key}", "{key} is where i live", "{key} is my town", "we are in {key} here",
        "i was born in {key}", "{key} has my heart", "i pay my rent in {key}",
        "my window looks out on {key}",
    ),
    "hobby": (
        "i {act}", "i {act} every {day}", "i love {key}", "i spend my free time on {key}",
        "{key} is my thing", "my hobby is {key}", "to relax i {act}", "i {act} whenever i can",
        "i am really into {key}", "{key} keeps me sane", "my {day} is for {key}",
        "my passion is {key}", "after work i {act}", "i could {act} all day",
        "{key} is how i unwind", "i am hooked on {key}", "i joined a club for {key}",
        "most weekends i {act}", "my heart belongs to {key}",
    ),
    "family": (
        "i live with my {key}", "i share my home with my {key}", "my {key} and i share a home",
        "it is me and my {key} at home", "i have my {key} at home with me",
        "my {key} {is} always around", "i spend my evenings with my {key}",
        "i take care of my {key}", "my {key} {is} living with me",
        "i would be lost without my {key}", "it is loud here thanks to my {key}",
        "i am very close to my {key}", "my {key} and i do everything together",
        "home is me and my {key}", "i cook for my {key} every night", "i adore my {key}",
        "life with my {key} is good",
    ),
}

# What follows an own fact; the empty one leaves it bare.
TAILS = {
    "work": ("", " , {bit}", " . {bit}", " and {bit}", " , mostly {n}", " , lots of {n}",
             " . my days are full of {n}", " . it is all {n}", " , so {n} all day"),
    "pet": ("", " , {bit}", " . {bit}", " and {bit}", " , {he} adores {n}",
            " . {he} is mad about {n}", " . {he} wants {n} all day", " , spoiled with {n}"),
    "food": ("", " , {bit}", " . {bit}", " and {bit}", " with {n}", " , always with {n}",
             " and plenty of {n}", " , the more {n} the better", " . extra {n} please"),
    "place": ("", " , {bit}", " . {bit}", " and {bit}", " . i love the {n}", " . so many {n} here",
              " , famous for {n}", " , a place of {n}", " , {n} and all"),
    "hobby": ("", " , {bit}", " . {bit}", " and {bit}", " . it is all about {n}",
              " . i dream of {n}", " , so my head is full of {n}", " . {n} make me happy"),
    "family": ("", " , {bit}", " . {bit}", " and {bit}", " . we share {n}", " . we love {n}",
               " , so our days are full of {n}", " . {n} keep us close"),
}

# How the speaker is doing, coloured by an own fact.
DOING = {
    "work": ("i just came home from my job as {a}", "my day as {a} was long",
             "i am worn out from being {a}", "i survived another day as {a}"),
    "pet": ("i am busy feeding my {key}", "my {key} woke me too early",
            "i was just talking to my {key}", "my {key} made a mess again"),
    "food": ("i just finished my {key}", "i am busy making {key}", "i just ate {key}",
             "my plate is full of {key}"),
    "place": ("i am enjoying the evening here in {key}", "my morning here in {key} is calm",
              "i just walked around {key}", "i am home in {key} with a cold"),
    "hobby": ("i have been busy with {key}", "i am sore from {key}",
              "my head is full of {key}", "i want to {act} later"),
    "family": ("i am waiting for my {key}", "i just had tea with my {key}",
               "my {key} just made me laugh", "i cleaned up after my {key}"),
}

# Plans for the weekend, coloured by an own fact.
PLANS = {
    "work": ("i work weekends as {a}", "being {a} means i work on {day}"),
    "pet": ("i will stay in with my {key}", "i will play with my {key}",
            "my {key} and i will nap"),
    "food": ("i want to cook {key}", "i am making {key} for friends", "i will eat {key} in bed"),
    "place": ("i will wander around {key}", "i will show a friend my {key}"),
    "hobby": ("i will {act}", "i plan to {act} until dark", "just {key} for me",
              "i will {act} with a friend"),
    "family": ("i am taking my {key} out", "my {key} and i will stay in",
               "i will spoil my {key} a bit"),
}

# Why the speaker has to go, coloured by an own fact, and what may follow that.
LEAVING = {
    "work": ("i am {a} and up early", "every {key} needs sleep and so do i",
             "i must get back to being {a}", "my life as {a} starts early",
             "they need me as {a} at nine"),
    "pet": ("i have to feed my {key} now", "my {key} needs me now",
            "my {key} {name} wants me now", "i promised my {key} some {n}",
            "i hear my {key} in the kitchen"),
    "food": ("my {key} {is} getting cold", "i am off to eat {key}", "i need to go make {key}",
             "my {key} {is} ready", "i am hungry for {key}"),
    "place": ("it is getting late for me here in {key}", "my friends in {key} are waiting",
              "i want to see {key} before dark", "my bus home through {key} is here",
              "i have to walk home through {key}"),
    "hobby": ("i am late for {key}", "i have {key} in an hour", "i want to {act} before bed",
              "i need to get ready for {key}", "i promised a friend to {act}"),
    "family": ("my {key} {is} waiting for me", "i promised my {key} some {n}",
               "i hear my {key} at the door", "i have to cook for my {key}",
               "i said i would call my {key}"),
}
LEAVING_TAILS = ("", " , sorry", " , so it is time to go", " . time flies", " , so i must run",
                 " , thanks for the chat")

ASK = {
    "work": ("what do you do for a living ?", "what is your job ?", "what keeps you busy all day ?",
             "do you work or study ?", "what kind of work do you do ?", "do you have a job ?",
             "how do you pay the bills ?", "what is your line of work ?"),
    "pet": ("do you have any pets ?", "any pets at home ?", "are you an animal person ?",
            "is there an animal in your home ?", "do you keep any animals ?",
            "what pet do you have ?", "any animals at your place ?", "do you have a pet ?"),
    "food": ("what is your favorite food ?", "what do you like to eat ?",
             "what are you having for dinner ?", "what could you eat every day ?",
             "what dish do you love most ?", "what do you cook best ?",
             "what is your favorite meal ?", "any favorite dish ?", "what is for dinner ?"),
    "place": ("where do you live ?", "where are you from ?", "where is home for you ?",
              "which city are you in ?", "where are you writing from ?",
              "what part of the world are you in ?", "where do you call home ?",
              "what town are you in ?"),
    "hobby": ("what do you do for fun ?", "do you have any hobbies ?",
              "how do you spend your free time ?", "what do you do after work ?",
              "what do you do to relax ?", "what is your favorite hobby ?",
              "how do you unwind ?", "what are you into ?"),
    "family": ("who do you live with ?", "do you have family at home ?", "do you live alone ?",
               "who shares your home ?", "do you have a big family ?",
               "who is at home with you ?", "is your family close ?", "how is your family ?"),
}
ASK_PLANS = ("any plans for the weekend ?", "what are you up to this weekend ?",
             "doing anything fun on the weekend ?", "what is your plan for tomorrow ?")
ASK_DOING = ("how are you ?", "how are you doing ?", "how is it going ?", "how was your day ?",
             "what are you up to ?", "are you well ?", "how are things with you ?")
ASK_BACK = ("and you ?", "what about you ?", "how about you ?", "you ?", "same question to you ?",
            "may i ask the same of you ?")

# A slot the speaker has no fact for.
EVADE = {
    "work": ("i would rather not talk about work", "i am between jobs right now",
             "work is a long story", "i try to forget work at night"),
    "pet": ("sadly i have no pets", "just a few plants", "no animals are allowed in here",
            "i am too busy for a pet"),
    "food": ("i eat anything really", "i am not picky", "whatever is in the fridge",
             "i hardly ever cook"),
    "place": ("here and there", "i travel too much to say", "far away from the big cities",
              "in the middle of nowhere"),
    "hobby": ("i have no time for hobbies", "mostly i just sleep", "i am a bit lazy to be honest",
              "not much these days"),
    "family": ("it is just me here", "my family is far away", "i have the place to myself",
               "that is a long story"),
}

# Follow-up questions on a fact the partner told, each with what the answer draws on.
FOLLOW = {
    "work": (("how long have you done that ?", "years"), ("do you like it ?", "bit"),
             ("what is that like ?", "bit"), ("is it hard ?", "bit"),
             ("what do you see most ?", "noun"), ("are you good at it ?", "years")),
    "pet": (("what is the name ?", "name"), ("is that a lot of work ?", "bit"),
            ("any funny stories ?", "bit"), ("what makes your pet happy ?", "noun"),
            ("does your pet behave ?", "bit")),
    "food": (("how do you make it ?", "bit"), ("what goes with it ?", "noun"),
             ("what is your secret ?", "bit"), ("with what on top ?", "noun")),
    "place": (("what is it like there ?", "bit"), ("do you like it there ?", "bit"),
              ("what is there to see ?", "noun"), ("what should a visitor see ?", "noun")),
    "hobby": (("when do you do that ?", "day"), ("how is that going ?", "bit"),
              ("are you any good ?", "bit"), ("what do you like about it ?", "noun"),
              ("which day is that ?", "day")),
    "family": (("what do you do together ?", "noun"), ("what is that like ?", "bit"),
               ("do you get along ?", "bit"), ("is there ever a quiet moment ?", "bit")),
}

# How a question returns to an earlier subject.
TOPICS = {"work": "job", "pet": "pet", "food": "cooking", "place": "town", "hobby": "hobby",
          "family": "family"}
RETURN = ("back to your {topic} , ", "about your {topic} , ", "one more on your {topic} , ")

# Answers to a follow-up question. Those in the second table name the value again.
ANSWER = {
    "bit": ("{bit}", "well , {bit}", "you see , {bit}", "i love it but {bit}",
            "it is fine , {bit}", "all i can say is that {bit}", "these days {bit}"),
    "noun": ("mostly {n}", "{n} , of course", "a lot of {n}", "it has to be {n}",
             "{n} for the most part", "i would say {n}", "always {n}"),
    "years": ("for {years} years now", "it has been {years} years", "{years} years and counting",
              "i started {years} years ago"),
    "name": ("the name is {name}", "{name} , after a cartoon", "we picked {name}",
             "i went with {name}", "{name} , and {he} knows it"),
    "day": ("every {day}", "on {day} most of the time", "i keep my {day} free for it",
            "{day} is the day"),
}
ANSWER_NAMING = {
    "work": {"years": ("i have been {a} for {years} years", "i became {a} {years} years ago",
                       "i started out as {a} {years} years ago"),
             "bit": ("as {a} i can tell that {bit}", "i love being {a} but {bit}",
                     "i am {a} , so {bit}", "being {a} is fun for me but {bit}"),
             "noun": ("as {a} i get {n}", "being {a} gives me {n}", "i am {a} , so {n}",
                      "my life as {a} is {n}")},
    "pet": {"name": ("my {key} is called {name}", "i named my {key} {name}",
                     "i call my {key} {name}"),
            "bit": ("i love my {key} but {bit}", "my {key} is a star , {bit}",
                    "i know my {key} well , {bit}", "with my {key} at home {bit}"),
            "noun": ("my {key} loves {n}", "i give my {key} {n}", "my {key} lives for {n}",
                     "i got my {key} some {n}")},
    "food": {"bit": ("i make my {key} slowly , {bit}", "i love my {key} but {bit}",
                     "i make good {key} , {bit}", "i am proud of my {key} , {bit}"),
             "noun": ("i have my {key} with {n}", "i make my {key} with {n}",
                      "i eat my {key} with {n}", "my {key} always {has} {n}")},
    "place": {"bit": ("i love {key} but {bit}", "i know {key} well , {bit}",
                      "in my part of {key} {bit}", "my {key} is fine but {bit}"),
              "noun": ("my {key} is full of {n}", "i love {key} for the {n}",
                       "my part of {key} has {n}", "to me {key} is {n}")},
    "hobby": {"day": ("i {act} every {day}", "my {key} day is {day}", "on {day} i {act}"),
              "bit": ("i love {key} but {bit}", "i {act} badly , {bit}",
                      "i still {act} but {bit}", "with my {key} it is like this , {bit}"),
              "noun": ("i love {key} for the {n}", "i {act} for the {n}",
                       "to me {key} is all about {n}", "my {key} is all {n}")},
    "family": {"bit": ("i love my {key} but {bit}", "my {key} {is} fun , {bit}",
                       "with my {key} at home {bit}", "i know my {key} well , {bit}"),
               "noun": ("my {key} and i love {n}", "my {key} and i share {n}",
                        "with my {key} i get {n}", "my days with my {key} are all {n}")},
}

# The partner's fact named in a reaction: never in a first-person clause without "you".
REACT_NAMING = {
    "work": ("{a} ? {adj} !", "oh , {a} , how {adj}", "being {a} must be {adj}",
             "so you are {a} , {adj}", "i bet you are a good {key}",
             "the world needs a good {key}", "{a} , really ?"),
    "pet": ("{a} ? how {adj} !", "your {key} sounds {adj}", "{a} at home , {adj}",
            "i would love to meet your {key}", "give your {key} a hug", "{a} , really ?"),
    "food": ("oh , {key} , {adj} choice", "you made me hungry with that {key}",
             "{key} ? good taste !", "now i want some of your {key}", "{key} {is} always {adj}"),
    "place": ("{key} ? {adj} !", "{key} must be {adj} this time of year",
              "oh , {key} , how {adj}", "you are lucky to live in {key}", "{key} sounds far away"),
    "hobby": ("{key} ? how {adj} !", "{key} sounds {adj}", "you must be good at {key}",
              "{key} , that is {adj}", "i wish i had your patience for {key}"),
    "family": ("your {key} {is} lucky to have you", "how {adj} , say hello to your {key}",
               "your {key} must be {adj}", "i would like your {key}"),
}
REACT = ("that sounds {adj}", "how {adj}", "oh {adj}", "{adj} to hear", "wow , {adj}", "ha , {adj}",
         "i like that", "that made me smile", "good for you", "i can picture that", "no way !",
         "that is {adj}", "tell me more")

# Before a fact that nobody asked for.
VOLUNTEER = ("", "", "", "by the way ,", "as for me ,", "guess what ,", "over here ,", "oh and",
             "fun fact ,", "on my side ,", "to change the topic ,")

# Talk that is about nobody's facts: questions and answers to them.
DETOURS = (
    (("how is the weather over there ?", "is it cold where you are ?", "any rain today ?"),
     ("cold and gray today", "sunny at last", "it rains and rains", "windy but warm",
      "too hot to think")),
    (("seen any good films lately ?", "what are you watching these days ?",
      "do you like sad films ?"),
     ("i saw a funny one last night", "a sad one and i hid under a blanket",
      "i fell asleep in front of one", "only old ones these days", "a sad one , i cried a bit")),
    (("did you sleep well ?", "are you a morning person ?", "up late again ?"),
     ("i slept like a stone", "hardly at all", "the moon kept me up", "i am still half asleep",
      "better than last night")),
    (("what music do you like ?", "what are you listening to ?", "is that a radio i hear ?"),
     ("old jazz on the radio", "anything loud", "slow songs when it rains",
      "the same songs all week", "just silence for now")),
)

REPLY_DOING = ("i am well", "not too bad", "i am good", "all fine here", "a bit tired",
               "very well , thanks", "could be worse", "great , thanks")
SMALL_TALK = ("nice to meet you", "it is quiet here tonight", "i was hoping for a chat",
              "thanks for writing", "this day went by fast")
LEAVING_PLAIN = ("i should get going", "it is time for bed", "time to log off",
                 "it was fun to chat", "i enjoyed this")

# Habits: one of each is a speaker's own.
GREETINGS = ("hi", "hello", "hey there", "hi there", "good evening", "hi friend", "hello friend",
             "hey", "greetings", "good day", "hello again", "oh hello")
LEADS = ("well ,", "oh ,", "hmm ,", "honestly ,", "ah ,", "let me see ,", "to be fair ,",
         "funny thing ,", "so ,", "yes ,", "truth be told ,", "okay ,")
TAGS = ("haha", "lol", "you know", "for sure", "i guess", "oh well", "believe me", "i tell myself",
        "every time", "as always", "so yeah", "oh yes")
ADJECTIVES = ("lovely", "great", "cool", "neat", "fun", "sweet", "wonderful", "awesome",
              "fine", "nice")
FAREWELLS = ("bye !", "talk soon !", "take care !", "so long !", "see you !", "good night !",
             "cheers !", "bye for now !", "bye bye !")
CLOSERS = (".", ".", "!", "")

YEARS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
         "twelve", "twenty")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# Most pets are called by words the corpus has anyway, which keeps its vocabulary small.
NAMES = ("ginger", "honey", "cinnamon", "cherry", "maple", "marble", "paprika", "saffron", "basil",
         "sage", "pickles", "pirate", "dragon", "moss", "lemon", "salsa", "gravy", "bacon", "comma",
         "otto", "luna", "hugo", "daisy")
