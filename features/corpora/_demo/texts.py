"""Sentences of the demo corpus: one bank per emotion, and a neutral one.

A bank is a list of patterns; `{a|b}` stands for each of its choices in turn. The first patterns are
for training, the next for validation, the last for testing, so that the meaning of the sentences
generalises and not their form. Otherwise a speech encoder would recognise phrases from training,
and read the words from the audio.
"""

from __future__ import annotations

import itertools
import re

PATTERNS: dict[str, tuple[str, ...]] = {
    "sad": (
        "My {dog|uncle|grandmother} died {last night|in March}.",
        "I {cried|wept} {all night|for hours}.",
        "I miss {my mother|her voice|the old days} so much.",
        "She left me {heartbroken|in tears|in despair}.",
        "We lost {our home|our only son|everything}.",
        "Nobody {visits|remembers|loves} me any more.",
        "I feel so {empty|lonely} {tonight|without you}.",
        "It is hopeless, he is {gone|never coming back}.",
        "The {grief|sorrow} will not leave me.",
        "I am {miserable|depressed} {again|since she left}.",
        "He never came {home|back} from the war.",
        "My heart {aches|is broken} {for them|tonight}.",
        "Tears {ran down|streamed down} {her face|his cheeks}.",
        "I {sobbed|cried} at {the funeral|her grave}.",
        "I am {mourning|grieving for} my {sister|wife}.",
        "How {sad|lonely|sorrowful} this {house|winter} is.",
        "We {buried|said goodbye to} {our cat|grandpa} today.",
        "I just want to {cry|weep} and {be alone|give up}.",
        "They are {dead|gone for ever}, it {hurts|breaks me}.",
        "My {son|friend} passed away, I am {crushed|so sad}.",
    ),
    "disgusted": (
        "{Yuck|Ugh}, this {milk|fish} is rotten!",
        "That {toilet|sink} is {filthy|revolting}.",
        "There is {vomit|slime|snot} on my plate.",
        "The stench of {garbage|sewage} {makes me sick|is foul}.",
        "He {picks his nose|spits on the floor}, gross.",
        "This {soup|meat} tastes {vile|like dirt}.",
        "Eww, {maggots|worms} in the {bread|rice}!",
        "The {bathroom|mattress} is covered in mould.",
        "I {feel sick|retch} at the sight of {pus|blood}.",
        "What a {nasty|repulsive} {smell|mess}.",
        "His {breath|armpit} {reeks|stinks}.",
        "I found a {hair|dead fly} in my {salad|drink}.",
        "I scraped {mould|slime} off the {cheese|bread}, disgusting.",
        "Those {dirty|smelly} socks are {disgusting|nauseating}.",
        "This {rag|bucket} is {slimy|greasy} and stinks.",
        "It smells of {urine|rotten eggs|old puke} in here.",
        "How {gross|disgusting}, he {licked|ate} it!",
        "The {fridge|bin} is full of {rotting meat|mouldy food}.",
        "I almost {threw up|vomited} from that {stink|taste}.",
        "Take that {filthy|stinking} {thing|rag} away, yuck.",
    ),
    "surprised": (
        "{Wow|Oh my}, I never expected {this|a piano}!",
        "I can not believe {it is you|you came}!",
        "{Unbelievable|Incredible}, {it is snowing|they got married}!",
        "Wait, {you are twins|she is a doctor}, really?",
        "What a surprise, {a letter|they all came}!",
        "I had no idea {you could sing|he was here}!",
        "No way, {you won|he flew here}, seriously?",
        "Oh, how unexpected, {a visitor|a parcel}!",
        "{Gosh|Goodness}, where did {you|this} come from?",
        "I am {amazed|astonished} that {it worked|she agreed}!",
        "Suddenly {he stood there|it appeared}, out of nowhere!",
        "Is that {real|possible}, {a tiger|a castle}?",
        "Who would have thought, {a baby|a twin brother}!",
        "I am {stunned|astounded}, is it really {you|true}?",
        "{Amazing|Extraordinary}, {it can fly|what a coincidence}!",
        "{Wow|Whoa}, that came as {a shock|a surprise}!",
        "I am {so surprised|speechless}, {it works|you remembered}!",
        "I was not expecting {that|them|you}, wow!",
        "Can that be {true|you}, how {unexpected|surprising}!",
        "How {astonishing|surprising}, {it is gold|it floats}!",
    ),
    "angry": (
        "How dare you {lie to me|touch my car}!",
        "I am {furious|so angry} about {the bill|your lies}!",
        "Stop {yelling|cheating}, you {idiot|fool}!",
        "Get out of my {house|way} {right now|this minute}!",
        "You {ruined|wrecked} my {phone|work} again!",
        "Shut up, I have had enough of {you|this}!",
        "I hate {you|your guts}, you {traitor|liar}!",
        "This is an {outrage|insult}, I want my money!",
        "You {stole|smashed} it, {damn you|you thug}!",
        "Do not you {ever|dare} {talk back|hit him}!",
        "Your {rudeness|arrogance} makes me {mad|boil}!",
        "I will {sue|punish} that {crook|moron}!",
        "{Damn it|Hell}, you {broke|scratched} my {car|door}!",
        "I am {enraged|so mad} at {him|my boss}!",
        "Leave me alone, you {stupid|selfish} man!",
        "You {lied|cheated} again, I am {livid|furious}!",
        "Shut your mouth, you {jerk|brute}!",
        "How {dare they|could you} {insult|betray} us!",
        "I am sick of your {damn|stupid} {excuses|lies}!",
        "He {insulted|cheated} me, I am {so angry|raging}!",
    ),
    "happy": (
        "I am so {happy|glad} about {the wedding|my new job}!",
        "We won the {final|prize}, {hooray|how wonderful}!",
        "What a {lovely|fantastic} {party|holiday}!",
        "I love {this song|dancing}, it is such fun!",
        "{My sister|Our team} made it, I am overjoyed!",
        "Life is {beautiful|great}, I could {sing|dance}!",
        "Best {day|birthday} ever, thank you!",
        "Cheers, {to us|to love} and to happiness!",
        "The {baby|bride} is smiling, so {sweet|lovely}!",
        "I {passed|got the job}, yippee!",
        "Our {trip|summer} was pure {joy|delight}!",
        "I am {delighted|thrilled} with my {gift|new home}!",
        "Yes, we {did it|are champions}, let us celebrate!",
        "{She said yes|We are engaged}, I am so happy!",
        "We {laughed|smiled} and {danced|sang}, what joy!",
        "Hooray, {holidays|a party}, how {great|lovely}!",
        "I feel {wonderful|cheerful} and full of joy!",
        "What {good news|a joyful day}, I am so {glad|pleased}!",
        "We are having such {fun|a great time} {here|tonight}!",
        "I am so {proud|happy}, we {won|made it}!",
    ),
    "other": (
        "This {lecture|meeting} is so {boring|dull}.",
        "I am bored of {waiting|this talk}.",
        "Whatever, I do not care about {golf|the rules}.",
        "The {hours|minutes} {drag on|crawl by}.",
        "Same old {story|routine} again, how dull.",
        "I could fall asleep, it is so {tedious|slow}.",
        "There is nothing to do {here|today}.",
        "Yawn, {another form|more slides}.",
        "Are we done yet, I am {bored|losing interest}.",
        "This {film|book} goes on and on.",
        "I {scroll|stare at the wall} out of boredom.",
        "{Who cares|I do not mind}, it is all the same to me.",
        "What a {monotonous|tedious} {job|speech}.",
        "{His talk|This game} is boring, I am yawning.",
        "So bored, nothing ever happens {here|in this town}.",
        "How {boring|dull}, the {lesson|show} never ends.",
        "I am so bored {of this class|with this film}.",
        "Another {dull|dreary} {day|meeting} of waiting around.",
        "It is {tedious|boring} and I do not care.",
        "This dull {queue|seminar} makes me {sleepy|yawn}.",
    ),
    "fearful": (
        "I am {scared|terrified} of {the dark|that man}.",
        "Help, {a stranger|a burglar} is behind me!",
        "Hide, {he has a gun|the bear is coming}!",
        "Please do not {hurt|kill} me, I beg you.",
        "My hands are shaking, I am {frightened|panicking}.",
        "What was that noise, is someone {there|inside}?",
        "We are going to {die|crash}, help!",
        "Something {moves|breathes} {in the dark|under my bed}.",
        "Run for your life, {it is after us|they will shoot}!",
        "I am afraid {he will find us|of the storm}.",
        "The {ghost|killer} is coming, I am so scared.",
        "I had a {nightmare|panic} about {drowning|spiders}.",
        "I dread {the knife|the surgery}, I am trembling.",
        "I am too {afraid|scared} to {go in there|look down}.",
        "Someone is {following|watching} me, I am {scared|afraid}.",
        "Help me, {I am falling|there is a snake}!",
        "I am {terrified|so frightened}, lock the door!",
        "They will {kill|attack} us, we must {hide|flee}!",
        "I am shaking with {fear|terror}, {he is armed|stay close}.",
        "The {monster|murderer} is {here|at the door}, run!",
    ),
}

NEUTRAL_PATTERNS: tuple[str, ...] = (
    "The {keys|papers|cups} are {on the table|in the drawer|on the shelf}.",
    "The {train|bus|boat} leaves at {six|nine|noon}.",
    "{Peter|Maria|The clerk} put the {box|bag|chair} in the {hall|office}.",
    "We usually {walk|cycle|drive} to {work|school|town}.",
    "I {bought|need|have} {two pens|some paper|a map}.",
    "The {report|form|list} has {two|four|six} pages.",
    "It is {Monday|Tuesday|Friday}, the {third|ninth|tenth} of May.",
    "She wrote the {name|number|address} {on a card|in the book|at the top}.",
    "He is {reading|sending|printing} the {paper|message|plan} now.",
    "I will {call|meet|write to} the {teacher|driver|clerk} {at two|later}.",
    "The {cupboard|wall|fence} is {green|grey|brown|white}.",
    "Please {open|close} the {window|file|box} {first|on the left|after lunch}.",
    "They {sell|make|repair} {tables|bicycles|clocks} in this {shop|street}.",
    "The {river|road|bridge} is {north|south|west} of the {village|park}.",
    "The {second|third|next} {door|street} is on the {left|right}.",
    "There are {seven|ten|twelve} {chairs|desks|lamps} in the room.",
    "My neighbour works {in a bank|for the city|at a school} {now|on Fridays}.",
    "This {shirt|jacket|coat} is made of {wool|cotton|linen}.",
    "The {library|museum|office} opens at {eight|nine|ten|eleven}.",
    "You can park {behind|near} the {bank|school|hotel|hall}.",
)

HUMS = (
    *("Mm-hm.", "Mm.", "Um.", "Uh.", "Hmm.", "Er.", "Mhm."),
    *("Uh-huh.", "Hm."),
    *("Mmm.", "Umm.", "Erm."),
)
"""Transcripts of utterances without words, whatever their emotion; also said by `neutral`.

One row each for training, validation and testing."""


def expand(pattern: str) -> list[str]:
    """All sentences of a pattern, the last choice varying fastest.

    >>> expand("{My|Your} cat {sleeps|eats}.")
    ['My cat sleeps.', 'My cat eats.', 'Your cat sleeps.', 'Your cat eats.']
    """
    # re.split with a group alternates between fixed text and the inside of braces.
    parts = re.split(r"\{(.*?)\}", pattern)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*choices)]


def bank(emotion: str) -> tuple[str, ...]:
    """Patterns whose words show `emotion`; for `neutral`, those that show none."""
    return NEUTRAL_PATTERNS if emotion == "neutral" else PATTERNS[emotion]


def spoken(text: str) -> str:
    """Text for the synthesiser: the words without punctuation.

    A synthesiser raises its pitch at a question mark and pauses at a comma, so that the voice would
    carry a cue that only the words may.

    >>> spoken("Wait, you are twins, really?")
    'Wait you are twins really.'
    """
    return re.sub(r"[^\w\s]", "", text.replace("-", " ")) + "."
