"""Stored movies in other programs: one module for each program or format, imported when used.

A module has one function, which takes a handle and is also a method of it: ``to_suite2p(movie, folder)`` and
``movie.to_suite2p(folder)`` are the same. The other program's library is imported inside the function that needs it.
:mod:`.axes` has what several bridges need.
"""
