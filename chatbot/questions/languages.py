"""Detect questions in languages other than Korean and English."""

import re
import unicodedata
from typing import Final

# Everyday words of unsupported languages. A text is foreign if it has two or more of them, and fewer English words.
_FOREIGN: Final = frozenset(
    """el los las del una uno unos que por para con como cual cuál donde dónde está es son esta este sus pero
    muy más porque cuando le les des du est sont dans sur avec pour pas une qui quoi quel quelle mot de où je
    vous nous mais très ici der die das und ist sind nicht mit für auf wie wo ich sie wir was ein eine den
    dem von zu kann os uma não em no na onde usuário quem como por seu sua foi ele ela isso anteriores você
    meu yang di dan itu ini dengan untuk dari tidak bagaimana apa cara adalah saya anda membuat il lo gli
    della che non sono dove come perché chi mio questo het een van niet voor met wat waar nie ik jij
    yg dengan untuk pada dari tidak akan bisa tolong semua jangan siapa apakah dalam sudah atau saja kata sandi
    và của là không cho một những được tôi bạn với này hãy nào ở
    ve bir bu için ile ne nasıl değil ben sen mı mi olarak daha gibi kadar lütfen şifre
    nie jest się na jak co czy dla przez jestem proszę wszystkie hasło który gdzie
    že jsem je se nebo kde prosím všechny heslo který
    și este nu cu la ce cum sunt pentru din să care vă rog parola
    och det att är inte på jag som för vad hur med alla lösenord
    ikke jeg deg og er på til hvad hvordan hvor alle adgangskode passord
    ja ei mikä miten minä sinä että kaikki ole salasana
    és az hogy nem egy van vagy én ez kérem jelszó összes
    ang mga sa ng ako ikaw hindi ito ano paano lahat mo ko po
    ya wa kwa ni hii katika yako yangu nini jinsi si
    et quid ut cum quod sed ego omnia
    kaj estas vi kio kiel ĉiuj
    da što kako sam za sve ali ili koji lozinka""".split()  # noqa: SIM905  # a word list reads best as prose
)
_ENGLISH: Final = frozenset(
    """the a an is are was were to of in for on and or i my me you your it this that can could do does did
    how what why when where which who with have has had not be been will would should if from at as by please
    there we they he she am but so no its just get got about any all more out up now new use make need want
    also than then them his her our us one into over""".split()  # noqa: SIM905  # a word list reads best as prose
)
_SERVED_SCRIPTS: Final = ("LATIN", "HANGUL", "CJK")


def is_unserved_language(text: str) -> bool:
    """Return whether over a quarter of the letters, or most function words, belong to an unserved language."""
    letters = [char for char in text if char.isalpha()]
    foreign_letters = [
        char for char in letters if not char.isascii() and not unicodedata.name(char, "").startswith(_SERVED_SCRIPTS)
    ]
    if len(letters) >= 4 and len(foreign_letters) * 4 > len(letters):
        return True
    words = re.findall(r"[^\W\d_]+", text.lower())
    latin_words = [word for word in words if word[0] < "가"]
    foreign = sum(word in _FOREIGN and word not in _ENGLISH for word in latin_words)
    english = sum(word in _ENGLISH for word in latin_words)
    return foreign >= 2 and foreign > english
