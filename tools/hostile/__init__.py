"""Hostile images: bytes that no cowfs wrote, and what the engine makes of them.

`flips.py` flips each byte of small images. `forge.py` damages what the bytes mean and computes all
checksums above it anew, so that nothing but the engine's own checks stands between the damage and
the reader. `judge.py` uses each image in every way there is, and says whether it behaved: the right
data, an error that names the damage, or a report of `check`; `bounds.py` bounds memory and time.
`parse.py` has coverage-guided fuzzing look for bytes that a parser mishandles.

    images.py  what is damaged          judge.py   what is right
    page.py    a node page, in Python   bounds.py  processes that may not take too much
    seal.py    checksums up to the top  flips.py, forge.py, parse.py  three campaigns
    damage.py  kinds of damage          __main__.py  the command line, `tools/attack`
"""
