"""Stored movies in other programs: one module for each program or format, imported when used.

A module has one function, which takes a handle and is also a method of it: ``to_suite2p(movie, folder)`` and
``movie.to_suite2p(folder)`` are the same. Modules here import public names of the package only, and the other
program's library inside the function that needs it.
"""
