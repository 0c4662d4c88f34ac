"""Spellings: folded texts as they read when look-alike letters, leet, rot13, mirror writing and typos are undone.

What is worth undoing is known by a vocabulary, the words that attacks are made of: a text that does not hold one of
them in disguise has no such view and costs one look at its words.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator

import re2

from guardrails_mw.gates.injection.folding import Change, View, Way, rewritten
from guardrails_mw.gates.injection.segments import Segmenter

__all__ = ["Speller"]

_NO_LETTERS = bytes(code if chr(code) in string.ascii_lowercase else 32 for code in range(256))
_MIXED = re.compile(r"(?<![a-z0-9@$!|+])(?:[a-z]+[0-9@$!|+]|[0-9@$!|+]+[a-z])[a-z0-9@$!|+]*")
_DIGITS = re.compile(r"(?<![\w.,:-])[0134579]{1,4}(?![\w,:-])")
_TOKEN = re.compile(r"[^\W_]+")
_LEET = str.maketrans("01345789@$!|+62", "oieastbgasiltgz")
_ALIKE = str.maketrans("1!|l", "iiii")  # drawn alike: a word is looked up with all of them as one
_STYLED = (  # letters that stand in for Latin ones and in no language mixed with them: small capitals, Cherokee, Lisu
    "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢᎪᏴᏟᎠᎬᏀᎻᏆᎫᏦᏞᎷᏢᏒᏚᎢᏙᎳᎩᏃᏼᏻꓮꓐꓚꓓꓰꓝꓖꓧꓲꓙꓗꓡꓟꓠꓳꓑꓣꓢꓔꓴꓦꓪꓫꓬꓜ",
    "abcdefghijklmnoprstuvwyzabcdeghijklmprstvwyzbgabcdefghijklmnoprstuvwxyz",
)
_TWINS = str.maketrans(
    # Cyrillic, Greek, Armenian, small capitals and phonetic letters, by the Latin letter that they look like
    "авсԁеёнһіїјкӏмпорԛгѕтѵԝхуьαβεηικνορτυχγωσһսօոհցզյϲϳɑɡıɩʋƅϝλ" + _STYLED[0],
    "abcdeehhiijklmnopqrstvwxybabenikvoptuxywohuonhgqjcjagiivbfl" + _STYLED[1],
)
_FLIPPED = re2.compile("[ɐɔǝɟƃɥᴉɾʞɯɹʇʌʍʎ]{1,3}[a-z]{0,3}[ɐɔǝɟƃɥᴉɾʞɯɹʇʌʍʎ]")
_UPRIGHT = str.maketrans("ɐqɔpǝɟƃɥᴉɾʞlɯuodbɹsʇnʌʍxʎ", "abcdefghijklmnopqrstuvwxy")
_BLENDED = re2.compile("[a-z][{0}]|[{0}][a-z]|[{1}]{{2}}".format("".join(map(chr, _TWINS)), _STYLED[0]))
_LEETISH = re2.compile("[a-z][0134578@$|]|[0134578@$|!+][a-z]")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_SHIFTS = {  # Caesar's 25 alphabets and, under 0, the one written backwards
    key: str.maketrans(_ALPHABET, _ALPHABET[key:] + _ALPHABET[:key] if key else _ALPHABET[::-1]) for key in range(26)
}
_BACK = {key: {new: old for old, new in table.items()} for key, table in _SHIFTS.items()}
_PIGGED = re.compile(r"\b([a-z]{1,20})ay\b")
_STRETCHED = re2.compile(
    "|".join(letter * 3 for letter in _ALPHABET if letter != "w")
    + r"|[a-z]\*[a-z]{2}|(?:[a-z][*#][a-z*#]{1,12}[a-z][^*#]{0,60}){2}"
    r"|(?:(?:aa|hh|ii|jj|kk|qq|uu|vv|xx|yy)[^.]{0,60}){2}"
)
_DOUBLED = re.compile(r"([a-z])\1+")
_VOWELS = re.compile("[aeiou*#]+")
_CUT_WORD = re.compile(r"[a-z](?:[a-z]|[*#]+(?=[a-z*#]*[a-z])){2,}")
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = {
    key: row[max(0, place - 1) : place] + row[place + 1 : place + 2] for row in _KEYS for place, key in enumerate(row)
}
_COMMON = ("the", "you", "your", "this", "that", "with", "from", "have", "what", "are", "all", "and", "not", "will")
_REAL = frozenset({"era", "ton", "dna", "saw", "was", "lla", "liew", "evil", "live", "stop", "pots", "tool", "loot"})

_OWN = (  # words of their own, though one letter from one of the vocabulary
    "reuse reusing decide strong exiting suppose stated stand forge linger stating warming starred compete inert "
    "inset precious polices overrode staring regen mater matter forgo filers principle intl broke singe thank "
    "sting sitting compl strt prnt dflt vrfy cntxt rqst shld nueva matte enode forged forger messages massage "
    "content contend"
)
_NO_TYPOS = frozenset(_OWN.split())


class Speller:
    """Undoes spellings of a vocabulary: lower-case words.

    Args:
        vocabulary: the words that are known in disguise.
        others: words that may stand between them where blanks are missing.

    >>> speller = Speller(["ignore", "previous"])
    >>> [(view.name, view.text) for view in speller.respelled(View("text", "1gn0re the pervious"))]
    [('letters', 'ignore the previous')]
    """

    def __init__(self, vocabulary: Iterable[str], others: Iterable[str] = ()) -> None:
        words = frozenset(vocabulary) | frozenset(_COMMON)
        self._words = words
        long = [word for word in words if len(word) > 3]
        self._shifted = {word.translate(table): key for key, table in _SHIFTS.items() for word in long}
        for word in words:
            self._shifted.pop(word, None)
        self._mirrored = frozenset(word[::-1] for word in words) - words - _REAL
        self._typos = {typo: word for word in words if len(word) > 4 for typo in _misspelt(word)}
        self._skeletons = {_skeleton(word): word for word in sorted(words) if len(word) > 4}
        self._typos |= {bones: word for bones, word in self._skeletons.items() if len(bones) > 3}
        self._single = {_DOUBLED.sub(r"\1", word): word for word in words}
        self._alike = {_alike(word): word for word in sorted(words)}
        self._segmenter = Segmenter(words, others)
        for word in words | _NO_TYPOS:
            self._typos.pop(word, None)
        self._misspelt = frozenset(self._typos)
        self._pigged = frozenset(form for word in long for form in _pigged(word)) - words
        self._odd = self._pigged | self._shifted.keys() | self._mirrored | self._misspelt

    def respelled(self, view: View) -> Iterator[View]:
        """The views of a view's folded text in which something reads differently."""
        words = _words(view.text)
        if not self._odd.isdisjoint(words):
            yield from self._enciphered(view, words)
        if not view.text.isascii() and _FLIPPED.search(view.text):
            upright = View("flipped", view.text.translate(_UPRIGHT), view.span, folded=True)
            yield upright
            yield next(_mirrored(upright))
        letters = self._letters(view.text)
        if letters != view.text:
            words = _words(letters)
        stretched = _STRETCHED.search(letters) is not None
        wrong = words & self._misspelt
        if stretched or wrong:
            text, way = self._corrected(letters, view.span, None if stretched else wrong)
            yield View("respelled" if letters == view.text else "letters", text, way, folded=True)
        elif letters != view.text:
            yield View("letters", letters, view.span, folded=True)
        yield from self._segmenter.segmented(view, words)

    def _enciphered(self, view: View, words: set[str]) -> Iterator[View]:
        """Shifted alphabets and mirror writing of which two words or more are known."""
        keys = Counter(self._shifted[word] for word in words & self._shifted.keys())
        for key, count in keys.most_common(2):
            if count > 1:
                name = "rot13" if key == 13 else "shifted"
                yield View(name, view.text.translate(_BACK[key]), view.span, folded=True)
        if len(words & self._mirrored) > 1:
            yield from _mirrored(view)
        if len(words & self._pigged) > 1:
            yield View("pig latin", *rewritten(view.text, self._unpigged(view.text), view.span), folded=True)

    def _unpigged(self, text: str) -> Iterator[Change]:
        """What pig Latin makes of every word; the consonants that it moved are guessed by the vocabulary."""
        for match in _PIGGED.finditer(text):
            body = match.group(1)
            turned = [body[-count:] + body[:-count] for count in (1, 2, 3) if count < len(body)]
            whole = body.removesuffix("w") if body[:1] in "aeiou" else body[-1:] + body[:-1]
            yield *match.span(), next((word for word in (whole, *turned) if word in self._words), whole)

    def _corrected(self, text: str, way: Way, wrong: Iterable[str] | None) -> tuple[str, Way]:
        """The text with some words corrected, or all that can be."""
        if wrong is not None:
            changes = [change for word in wrong for change in _put(text, word, self._typos[word])]
            return rewritten(text, sorted(changes), way)
        found = ((match, self._correct(match.group())) for match in _CUT_WORD.finditer(text))
        return rewritten(text, [(*match.span(), word) for match, word in found if word and word != match.group()], way)

    def _correct(self, word: str) -> str | None:
        if word in self._words:
            return None
        if word in self._typos:
            return self._typos[word]
        if not word.isalpha():
            return self._skeletons.get(_skeleton(word)) or self._typos.get(word.replace("*", "").replace("#", ""))
        return self._single.get(_DOUBLED.sub(r"\1", word))

    def _letters(self, text: str) -> str:
        """Look-alike letters and digits replaced, one by one, so that offsets stay."""
        if not text.isascii() and _BLENDED.search(text):
            text = _latin(text)
        if not _LEETISH.search(text):
            return text
        plain: list[bool] = []

        def read(match: re.Match[str]) -> str:
            token = match.group()
            ending = token[len(token.rstrip("!|")) :]  # an exclamation, not a letter
            body = token[: len(token) - len(ending)]
            best = self._alike.get(_alike(body)) or body.translate(_LEET)
            plain.append(best in self._words)
            return best + ending

        new = _MIXED.sub(read, text)
        if not any(plain):
            return text
        return _DIGITS.sub(lambda match: match.group().translate(_LEET), new) if len(plain) > 3 else new


def _words(text: str) -> set[str]:
    return set(text.encode("ascii", "replace").translate(_NO_LETTERS).decode().split())


def _put(text: str, word: str, better: str) -> Iterator[Change]:
    """The better word wherever the other stands by itself."""
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        if not (text[start - 1 : start] + text[end : end + 1]).isalpha():
            yield start, end, better
        start = text.find(word, end)


def _latin(text: str) -> str:
    """Words that mix Latin letters with their twins from other scripts, in Latin letters."""
    mixed = False

    def read(match: re.Match[str]) -> str:
        nonlocal mixed
        token = match.group()
        if token.isascii():
            return token
        new = token.translate(_TWINS)
        if not new.isascii():
            return token
        mixed = mixed or any((char.isascii() and char.isalpha()) or char in _STYLED[0] for char in token)
        return new

    new = _TOKEN.sub(read, text)
    return new if mixed else text


def _mirrored(view: View) -> Iterator[View]:
    """The text read from its end, and every word of it read from its end."""
    length = len(view.text)
    yield View("reversed", view.text[::-1], lambda start, end: view.span(length - end, length - start), folded=True)
    words = " ".join(word[::-1] for word in view.text.split(" "))
    yield View("mirrored", words, view.span, folded=True)


def _pigged(word: str) -> Iterator[str]:
    """Pig Latin's forms of a word: its first consonants behind it, and "ay"."""
    if word[0] in "aeiou":
        yield from (word + ending for ending in ("way", "yay", "ay"))
    else:
        yield from (word[count:] + word[:count] + "ay" for count in (1, 2, 3))


def _misspelt(word: str) -> Iterator[str]:
    """The word with two neighbouring letters swapped, one letter missing or twice, or a key beside the right one."""
    for index in range(len(word) - 1):
        if word[index] != word[index + 1]:
            yield word[:index] + word[index + 1] + word[index] + word[index + 2 :]
    if len(word) > 5:
        for index in range(1, len(word) - 1):
            yield word[:index] + word[index + 1 :]
            yield word[:index] + word[index] + word[index:]
            for key in _BESIDE[word[index]]:
                yield word[:index] + key + word[index + 1 :]


def _alike(word: str) -> str:
    return word.translate(_ALIKE).translate(_LEET)


def _skeleton(word: str) -> str:
    """The first letter and the consonants after it."""
    return word[:1] + _VOWELS.sub("", word[1:])
