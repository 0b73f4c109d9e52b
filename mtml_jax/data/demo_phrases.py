"""Lists the wordings of the demo corpus: the ways in which speakers talk about facts.

One rule keeps the judge in `demo_judge` exact, and `tests/data/test_demo.py` checks
it: a wording of the speaker's own fact names it in a first-person clause, and a wording of
the partner's fact does not.
"""

import re


def _split(text: str) -> tuple[str, ...]:
    """Reads phrases between slashes."""
    return tuple(" ".join(phrase.split()) for phrase in text.split("/"))


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """Reads rows `key: phrase / phrase`, which may continue on further lines."""
    _, *cells = re.split(r"^(\w+):", text, flags=re.MULTILINE)
    return {key: _split(phrases) for key, phrases in zip(cells[::2], cells[1::2])}


STATEMENTS = _table("""
work: i work as {a} / i am {a} by trade / i have been {a} for {years} years
pet: i have {a} named {name} / my {key} is called {name} / i keep {a} at home
food: my favorite food is {key} / i could eat {key} every day / i love {key}
place: i live in {key} / my home is in {key} / i am from {key}
hobby: i {act} every {day} / my hobby is {key} / i {act} in my free time
family: i live with my {key} / i share my home with my {key} / i take care of my {key}
""")

# The speaker's own fact: every wording names the value in a first-person clause.
TELL = _table("""
work: i work as {a} / i am {a} / i am {a} by trade / i earn my living as {a} /
  i have been {a} for {years} years / i make my money as {a} / they pay me to be {a} /
  i spend my days as {a} / i am a proud {key} / i started as {a} {years} years ago /
  i became {a} {years} years ago / being {a} pays my bills / people know me as {a} /
  i trained to be {a} and still love it / life as {a} suits me / i am happy as {a} /
  my job is to be the best {key} in town / i wanted to be {a} since school
pet: i have {a} / i have {a} named {name} / i own {a} / i keep {a} called {name} /
  i share my desk with {a} / i live with {a} named {name} / my {key} {name} runs the place /
  my {key} is called {name} / i am the proud owner of {a} / there is {a} right next to me /
  i look after {a} / my best friend is {a} / i raised {a} by hand /
  i could talk about my {key} all day / my {key} is my whole world / {name} is my {key} /
  we keep {a} at home / my {key} {name} is the boss here
food: i love {key} / i could eat {key} every day / my favorite food is {key} /
  i make the best {key} in town / it has to be {key} for me / i always order {key} /
  i would do anything for {key} / i live for {key} / i am crazy about {key} /
  i cook {key} every week / my favorite meal is {key} / give me {key} any day /
  i had {key} for lunch again / i grew up on {key} / nothing beats {key} in my book /
  i have a weakness for {key} / i dream of {key} at night / my kitchen smells of {key}
place: i live in {key} / i am from {key} / my home is in {key} / i am in {key} /
  i have a small flat in {key} / home for me is {key} / i grew up in {key} and stayed /
  i am writing from {key} / i call {key} home / i have lived in {key} all my life /
  my flat is in {key} / {key} is where i live / {key} is my town / we are in {key} here /
  i was born in {key} / {key} has my heart / i pay my rent in {key} / my window looks out on {key}
hobby: i {act} / i {act} every {day} / i love {key} / i spend my free time on {key} /
  {key} is my thing / my hobby is {key} / to relax i {act} / i {act} whenever i can /
  i am really into {key} / {key} keeps me sane / my {day} is for {key} / my passion is {key} /
  after work i {act} / i could {act} all day / {key} is how i unwind / i am hooked on {key} /
  i joined a club for {key} / most weekends i {act} / my heart belongs to {key}
family: i live with my {key} / i share my home with my {key} / my {key} and i share a home /
  it is me and my {key} at home / i have my {key} at home with me / my {key} {is} always around /
  i spend my evenings with my {key} / i take care of my {key} / my {key} {is} living with me /
  i would be lost without my {key} / it is loud here thanks to my {key} /
  i am very close to my {key} / my {key} and i do everything together / home is me and my {key} /
  i cook for my {key} every night / i adore my {key} / life with my {key} is good
""")

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

# Answers to how the speaker is, with an own fact.
DOING = _table("""
work: i just came home from my job as {a} / my day as {a} was long / i am worn out from being {a} /
  i survived another day as {a}
pet: i am busy feeding my {key} / my {key} woke me too early / i was just talking to my {key} /
  my {key} made a mess again
food: i just finished my {key} / i am busy making {key} / i just ate {key} /
  my plate is full of {key}
place: i am enjoying the evening here in {key} / my morning here in {key} is calm /
  i just walked around {key} / i am home in {key} with a cold
hobby: i have been busy with {key} / i am sore from {key} / my head is full of {key} /
  i want to {act} later
family: i am waiting for my {key} / i just had tea with my {key} / my {key} just made me laugh /
  i cleaned up after my {key}
""")

# Plans for the weekend, with an own fact.
PLANS = _table("""
work: i work weekends as {a} / being {a} means i work on {day}
pet: i will stay in with my {key} / i will play with my {key} / my {key} and i will nap
food: i want to cook {key} / i am making {key} for friends / i will eat {key} in bed
place: i will wander around {key} / i will show a friend my {key}
hobby: i will {act} / i plan to {act} until dark / just {key} for me / i will {act} with a friend
family: i am taking my {key} out / my {key} and i will stay in / i will spoil my {key} a bit
""")

# Reasons to leave, with an own fact, and what may follow them.
LEAVING = _table("""
work: i am {a} and up early / every {key} needs sleep and so do i / i must get back to being {a} /
  my life as {a} starts early / they need me as {a} at nine
pet: i have to feed my {key} now / my {key} needs me now / my {key} {name} wants me now /
  i promised my {key} some {n} / i hear my {key} in the kitchen
food: my {key} {is} getting cold / i am off to eat {key} / i need to go make {key} /
  my {key} {is} ready / i am hungry for {key}
place: it is getting late for me here in {key} / my friends in {key} are waiting /
  i want to see {key} before dark / my bus home through {key} is here /
  i have to walk home through {key}
hobby: i am late for {key} / i have {key} in an hour / i want to {act} before bed /
  i need to get ready for {key} / i promised a friend to {act}
family: my {key} {is} waiting for me / i promised my {key} some {n} / i hear my {key} at the door /
  i have to cook for my {key} / i said i would call my {key}
""")
LEAVING_TAILS = ("", " , sorry", " , so it is time to go", " . time flies", " , so i must run",
                 " , thanks for the chat")

ASK = _table("""
work: what do you do for a living ? / what is your job ? / what keeps you busy all day ? /
  do you work or study ? / what kind of work do you do ? / do you have a job ? /
  how do you pay the bills ? / what is your line of work ?
pet: do you have any pets ? / any pets at home ? / are you an animal person ? /
  is there an animal in your home ? / do you keep any animals ? / what pet do you have ? /
  any animals at your place ? / do you have a pet ?
food: what is your favorite food ? / what do you like to eat ? / what are you having for dinner ? /
  what could you eat every day ? / what dish do you love most ? / what do you cook best ? /
  what is your favorite meal ? / any favorite dish ? / what is for dinner ?
place: where do you live ? / where are you from ? / where is home for you ? /
  which city are you in ? / where are you writing from ? / what part of the world are you in ? /
  where do you call home ? / what town are you in ?
hobby: what do you do for fun ? / do you have any hobbies ? / how do you spend your free time ? /
  what do you do after work ? / what do you do to relax ? / what is your favorite hobby ? /
  how do you unwind ? / what are you into ?
family: who do you live with ? / do you have family at home ? / do you live alone ? /
  who shares your home ? / do you have a big family ? / who is at home with you ? /
  is your family close ? / how is your family ?
""")
ASK_PLANS = ("any plans for the weekend ?", "what are you up to this weekend ?",
             "doing anything fun on the weekend ?", "what is your plan for tomorrow ?")
ASK_DOING = ("how are you ?", "how are you doing ?", "how is it going ?", "how was your day ?",
             "what are you up to ?", "are you well ?", "how are things with you ?")
ASK_BACK = ("and you ?", "what about you ?", "how about you ?", "you ?", "same question to you ?",
            "may i ask the same of you ?")

# Answers about a slot for which the speaker has no fact.
EVADE = _table("""
work: i would rather not talk about work / i am between jobs right now / work is a long story /
  i try to forget work at night
pet: sadly i have no pets / just a few plants / no animals are allowed in here /
  i am too busy for a pet
food: i eat anything really / i am not picky / whatever is in the fridge / i hardly ever cook
place: here and there / i travel too much to say / far away from the big cities /
  in the middle of nowhere
hobby: i have no time for hobbies / mostly i just sleep / i am a bit lazy to be honest /
  not much these days
family: it is just me here / my family is far away / i have the place to myself /
  that is a long story
""")

# Follow-up questions about a fact of the partner, each with the source of its answer.
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

# Openings of a question about an earlier subject.
TOPICS = {"work": "job", "pet": "pet", "food": "cooking", "place": "town", "hobby": "hobby",
          "family": "family"}
RETURN = ("back to your {topic} , ", "about your {topic} , ", "one more on your {topic} , ")

# Answers to a follow-up question; those of ANSWER_NAMING name the value again.
ANSWER = _table("""
bit: {bit} / well , {bit} / you see , {bit} / i love it but {bit} / it is fine , {bit} /
  all i can say is that {bit} / these days {bit}
noun: mostly {n} / {n} , of course / a lot of {n} / it has to be {n} / {n} for the most part /
  i would say {n} / always {n}
years: for {years} years now / it has been {years} years / {years} years and counting /
  i started {years} years ago
name: the name is {name} / {name} , after a cartoon / we picked {name} / i went with {name} /
  {name} , and {he} knows it
day: every {day} / on {day} most of the time / i keep my {day} free for it / {day} is the day
""")
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

# Reactions that name the partner's fact, never in a first-person clause without "you".
REACT_NAMING = _table("""
work: {a} ? {adj} ! / oh , {a} , how {adj} / being {a} must be {adj} / so you are {a} , {adj} /
  i bet you are a good {key} / the world needs a good {key} / {a} , really ?
pet: {a} ? how {adj} ! / your {key} sounds {adj} / {a} at home , {adj} /
  i would love to meet your {key} / give your {key} a hug / {a} , really ?
food: oh , {key} , {adj} choice / you made me hungry with that {key} / {key} ? good taste ! /
  now i want some of your {key} / {key} {is} always {adj}
place: {key} ? {adj} ! / {key} must be {adj} this time of year / oh , {key} , how {adj} /
  you are lucky to live in {key} / {key} sounds far away
hobby: {key} ? how {adj} ! / {key} sounds {adj} / you must be good at {key} /
  {key} , that is {adj} / i wish i had your patience for {key}
family: your {key} {is} lucky to have you / how {adj} , say hello to your {key} /
  your {key} must be {adj} / i would like your {key}
""")
REACT = ("that sounds {adj}", "how {adj}", "oh {adj}", "{adj} to hear", "wow , {adj}", "ha , {adj}",
         "i like that", "that made me smile", "good for you", "i can picture that", "no way !",
         "that is {adj}", "tell me more")

# Openings of a fact that nobody asked for.
VOLUNTEER = ("", "", "", "by the way ,", "as for me ,", "guess what ,", "over here ,", "oh and",
             "fun fact ,", "on my side ,", "to change the topic ,")

# Small talk unrelated to facts: (questions, answers).
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

# Habits of style: every speaker has one of each.
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
# Most names of pets are words that the corpus contains anyway; the vocabulary stays small.
NAMES = ("ginger", "honey", "cinnamon", "cherry", "maple", "marble", "paprika", "saffron", "basil",
         "sage", "pickles", "pirate", "dragon", "moss", "lemon", "salsa", "gravy", "bacon", "comma",
         "otto", "luna", "hugo", "daisy")
